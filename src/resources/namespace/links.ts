import * as R from '../../abi/rtnetlink.js';
import { createMessage } from '../../image/index.js';
import { fromCString } from '../../kernel/c-string.js';
import { concatenate, decodeAttributes, encodeAttributes } from '../../kernel/netlink/attributes.js';
import type { NetlinkMessage } from '../../kernel/netlink/message.js';
import { words } from '../../kernel/words.js';
import { criuConf } from './criu-conf.js';
import { LO, LOOPBACK, loadDevices } from './devices.js';
import { ask, describe, familyHeader, NETLINK_ROUTE, tell } from './messages.js';
import type { Part } from './part.js';
import { changedSysctls, sysctls } from './sysctls.js';

/**
 * Network devices (RTM_GETLINK, rtnetlink(7)). Every namespace is born with a loopback device, which is down; its state
 * and MTU are kept. Others cannot be made anew yet.
 */
const VOLATILE = new Set<number>([
  R.IFLA_STATS,
  R.IFLA_STATS64,
  R.IFLA_OPERSTATE,
  // What is there of IPv4 and IPv6 shows as addresses and sysctls.
  R.IFLA_AF_SPEC,
  R.IFLA_CARRIER_CHANGES,
  R.IFLA_CARRIER_UP_COUNT,
  R.IFLA_CARRIER_DOWN_COUNT,
]);

const ETH_ALEN = 6;

export const links: Part<readonly NetlinkMessage[]> = {
  name: 'devices',
  read: () => ask(NETLINK_ROUTE, R.RTM_GETLINK, familyHeader(R.IFINFOMSG_SIZE)),
  lines: (all) => all.map((message) => describe(nameOf(message), message, R.IFINFOMSG_SIZE, VOLATILE)),

  build(all) {
    const lo = all.find((message) => headOf(message).index === LO);
    if (lo === undefined) return;
    const { flags, mtu } = headOf(lo);
    tell(
      NETLINK_ROUTE,
      R.RTM_NEWLINK,
      0,
      linkOf({ index: LO, flags: flags & R.IFF_UP, change: R.IFF_UP, mtu }),
    );
  },

  write(all, writer, id, of) {
    const settings = changedSysctls(of(sysctls));
    writer.write(
      'netdev',
      id,
      all.map((message) => {
        const { index: ifindex, flags, mtu, name } = headOf(message);
        return createMessage('netdev', {
          ...{ type: LOOPBACK, ifindex, mtu, flags, name, address: new Uint8Array(ETH_ALEN) },
          conf4: criuConf(settings, 'ipv4', name),
          conf6: criuConf(settings, 'ipv6', name),
        });
      }),
    );
  },

  load(reader, id) {
    return loadDevices(reader, id).map(({ ifindex: index, flags, mtu }) => {
      const body = linkOf({ index, flags, change: 0, mtu });
      return { type: R.RTM_NEWLINK, flags: 0, body };
    });
  },
};

/** struct ifinfomsg and the attributes behind it; `change`: which of the flags are to be set. */
function linkOf(link: { index: number; flags: number; change: number; mtu: number }): Uint8Array {
  const head = familyHeader(R.IFINFOMSG_SIZE);
  const view = new DataView(head.buffer);
  view.setInt32(4, link.index, true);
  view.setUint32(8, link.flags, true);
  view.setUint32(12, link.change, true);
  return concatenate([head, encodeAttributes([[R.IFLA_MTU, words([link.mtu])]])]);
}

function headOf({ body }: NetlinkMessage): { index: number; flags: number; mtu: number; name: string } {
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
  const attributes = decodeAttributes(body.subarray(R.IFINFOMSG_SIZE));
  const mtu = attributes.get(R.IFLA_MTU);
  return {
    index: view.getInt32(4, true),
    flags: view.getUint32(8, true),
    mtu: mtu === undefined ? 0 : Buffer.from(mtu).readUInt32LE(),
    name: fromCString(attributes.get(R.IFLA_IFNAME)),
  };
}

/** "eth0 (veth)" */
function nameOf(message: NetlinkMessage): string {
  const info = decodeAttributes(message.body.subarray(R.IFINFOMSG_SIZE)).get(R.IFLA_LINKINFO);
  const kind = info === undefined ? '' : fromCString(decodeAttributes(info).get(R.IFLA_INFO_KIND));
  return `${headOf(message).name}${kind === '' ? '' : ` (${kind})`}`;
}
