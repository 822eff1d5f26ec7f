import * as R from '../../abi/rtnetlink.js';
import { AF_INET, AF_INET6, AF_UNSPEC } from '../../abi/socket.js';
import type { NetlinkMessage } from '../../kernel/netlink/message.js';
import { sleep_us } from '../../kernel/syscall.js';
import { messagesFile } from './image-file.js';
import { ask, describe, familyHeader, NETLINK_ROUTE, tell, tellUnlessThere } from './messages.js';
import type { Part } from './part.js';

/**
 * Addresses, routes and rules (rtnetlink(7)). What the kernel said of them is in the image as it was, in the form of
 * `ip addr save`, `ip route save` and `ip rule save`, and is said to it again. What it adds by itself, for a device that is
 * up or an address, is there already then.
 */
type Messages = readonly NetlinkMessage[];

const MAGIC = { addresses: 0x4736_1222, routes: 0x4531_1224, rules: 0x7170_6986 } as const;

function asked(type: number, size: number, family: number): NetlinkMessage[] {
  return ask(NETLINK_ROUTE, type, familyHeader(size, family));
}

export const addresses: Part<Messages> = {
  name: 'addresses',
  read: () => asked(R.RTM_GETADDR, R.IFADDRMSG_SIZE, AF_UNSPEC),
  lines: (all) => all.map((each) => describe('address', each, R.IFADDRMSG_SIZE, new Set([R.IFA_CACHEINFO]))),
  build(all) {
    for (const { body } of all) tellUnlessThere(NETLINK_ROUTE, R.RTM_NEWADDR, body);
    if (!all.some(isTentative)) untilUsable();
  },
  ...messagesFile('ifaddr', MAGIC.addresses),
};

const ADDRESS_FLAGS_AT = 2;
const USABLE_MS = 2000;

function isTentative({ body }: NetlinkMessage): boolean {
  return ((body[ADDRESS_FLAGS_AT] ?? 0) & R.IFA_F_TENTATIVE) !== 0;
}

/** A work queue makes an address of IPv6 usable, and adds its routes (net/ipv6/addrconf.c): some time after it was added. */
function untilUsable(): void {
  for (const deadline = Date.now() + USABLE_MS; addresses.read().some(isTentative); sleep_us(500))
    if (Date.now() > deadline) throw new Error('an address is not usable yet: its duplicate is looked for');
}

/** Of all tables; those that the kernel made itself, for addresses, are only compared. */
function routesOf(family: number, name: string, prefix: string): Part<Messages> {
  const isOurs = ({ body }: NetlinkMessage): boolean => body[PROTOCOL_AT] !== R.RTPROT_KERNEL;
  const { write, load } = messagesFile(prefix, MAGIC.routes);
  return {
    name,
    read: () => asked(R.RTM_GETROUTE, R.RTMSG_SIZE, family).filter((route) => !isCloned(route)),
    lines: (all) => all.map((each) => describe('route', each, R.RTMSG_SIZE, new Set([R.RTA_CACHEINFO]))),
    build: (all) => buildRoutes(all.filter(isOurs)),
    write: (all, ...rest) => write(all.filter(isOurs), ...rest),
    load,
  };
}

const PROTOCOL_AT = 5;
const FLAGS_AT = 8;

function isCloned({ body }: NetlinkMessage): boolean {
  return (new DataView(body.buffer, body.byteOffset).getUint32(FLAGS_AT, true) & R.RTM_F_CLONED) !== 0;
}

/** One may lead through another, which has to be there before it. */
function buildRoutes(routes: Messages): void {
  let left = routes;
  for (;;) {
    const failed: NetlinkMessage[] = [];
    let why: unknown;
    for (const route of left)
      try {
        tellUnlessThere(NETLINK_ROUTE, R.RTM_NEWROUTE, route.body);
      } catch (error) {
        failed.push(route);
        why = error;
      }
    if (failed.length === 0) return;
    if (failed.length === left.length) throw why;
    left = failed;
  }
}

export const routes4 = routesOf(AF_INET, 'routes of IPv4', 'route');
export const routes6 = routesOf(AF_INET6, 'routes of IPv6', 'route6');

/** CRIU's file has those of IPv4; a namespace is born with three of them, which may have been removed. */
export const rules: Part<Messages> = {
  name: 'rules',
  read: () => asked(R.RTM_GETRULE, R.RTMSG_SIZE, AF_INET),
  lines: (all) => all.map(ruleLine),
  build(all) {
    const [there, wanted] = [rules.read(), new Set(all.map(ruleLine))];
    const known = new Set(there.map(ruleLine));
    for (const rule of all)
      if (!known.has(ruleLine(rule))) tellUnlessThere(NETLINK_ROUTE, R.RTM_NEWRULE, rule.body);
    for (const rule of there)
      if (!wanted.has(ruleLine(rule))) tell(NETLINK_ROUTE, R.RTM_DELRULE, 0, rule.body);
  },
  ...messagesFile('rule', MAGIC.rules),
};

function ruleLine(rule: NetlinkMessage): string {
  return describe('rule', rule, R.RTMSG_SIZE, new Set());
}
