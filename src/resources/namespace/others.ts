import { NFGENMSG_SIZE } from '../../abi/netfilter.js';
import * as R from '../../abi/rtnetlink.js';
import { AF_INET6 } from '../../abi/socket.js';
import { fromCString } from '../../kernel/c-string.js';
import { decodeAttributes } from '../../kernel/netlink/attributes.js';
import type { NetlinkMessage } from '../../kernel/netlink/message.js';
import { NETLINK_NETFILTER } from '../../kernel/netlink/socket.js';
import { ask, describe, familyHeader, NETLINK_ROUTE, NETLINK_XFRM } from './messages.js';
import { filesOfNet, linesOfNet } from './net-files.js';
import type { Part } from './part.js';

/** What a network namespace can have too and cannot be made again: it is looked at, and whoever has some of it is refused. */
function lookedAt(name: string, read: () => readonly string[]): Part<readonly string[]> {
  return { name, read, lines: (all) => all };
}

const XFRM_MSG_GETSA = 0x12;
const XFRM_MSG_GETPOLICY = 0x15;
const EXPECTATIONS = (2 << 8) | 1;
const IPSETS = (6 << 8) | 7;
/** IPSET_ATTR_PROTOCOL with the version that all kernels since 4.20 know. */
const IPSET_PROTOCOL = Uint8Array.of(5, 0, 1, 0, 7, 0, 0, 0);

const STATE_AT = 8;

function isPermanent({ body }: NetlinkMessage): boolean {
  return ((body[STATE_AT] ?? 0) & R.NUD_PERMANENT) !== 0;
}

const rules6 = lookedAt('rules of IPv6', () =>
  ask(NETLINK_ROUTE, R.RTM_GETRULE, familyHeader(R.RTMSG_SIZE, AF_INET6)).map((rule) =>
    describe('rule', rule, R.RTMSG_SIZE, new Set()),
  ),
);

const neighbours = lookedAt('permanent neighbours', () =>
  ask(NETLINK_ROUTE, R.RTM_GETNEIGH, familyHeader(R.NDMSG_SIZE))
    .filter(isPermanent)
    .map(({ body }) =>
      Buffer.from(decodeAttributes(body.subarray(R.NDMSG_SIZE)).get(R.NDA_DST) ?? []).toString('hex'),
    ),
);

const qdiscs = lookedAt('queueing disciplines', () =>
  ask(NETLINK_ROUTE, R.RTM_GETQDISC, familyHeader(R.TCMSG_SIZE)).map((qdisc) => {
    const kind = fromCString(decodeAttributes(qdisc.body.subarray(R.TCMSG_SIZE)).get(R.TCA_KIND));
    return describe(kind, qdisc, R.TCMSG_SIZE, new Set([R.TCA_STATS, R.TCA_XSTATS, R.TCA_STATS2]));
  }),
);

/** So many of them. */
function counted(name: string, read: () => readonly NetlinkMessage[]): Part<readonly string[]> {
  return lookedAt(name, () => {
    const { length } = read();
    return length === 0 ? [] : [`${length} of them`];
  });
}

/** Files of /proc/net that are empty, or have nothing but a head, where there is nothing. */
const FILES = [
  'ip_vs',
  'ip_mr_vif',
  'ip6_mr_vif',
  'ip_mr_cache',
  'ip6_mr_cache',
  'arp_tables_names',
] as const;

function fileOf(name: string): Part<readonly string[]> {
  return lookedAt(`lines of /proc/net/${name}`, () => linesOfNet(name));
}

/** What the match `recent` of iptables remembers. */
const RECENT = 'xt_recent';

const recent = lookedAt('entries of xt_recent', () =>
  filesOfNet(RECENT).flatMap((name) => linesOfNet(`${RECENT}/${name}`)),
);

export const others: readonly Part<readonly string[]>[] = [
  rules6,
  neighbours,
  qdiscs,
  counted('security associations', () => ask(NETLINK_XFRM, XFRM_MSG_GETSA, new Uint8Array())),
  counted('security policies', () => ask(NETLINK_XFRM, XFRM_MSG_GETPOLICY, new Uint8Array())),
  counted('expected connections', () => ask(NETLINK_NETFILTER, EXPECTATIONS, familyHeader(NFGENMSG_SIZE))),
  counted('sets of ipset', () =>
    ask(NETLINK_NETFILTER, IPSETS, new Uint8Array([...familyHeader(NFGENMSG_SIZE), ...IPSET_PROTOCOL])),
  ),
  ...FILES.map(fileOf),
  recent,
];
