import { NFGENMSG_SIZE } from '../../abi/netfilter.js';
import { type Attribute, encodeAttributes, listAttributes } from '../../kernel/netlink/attributes.js';
import type { NetlinkMessage } from '../../kernel/netlink/message.js';
import { NETLINK_NETFILTER } from '../../kernel/netlink/socket.js';
import { messagesFile } from './image-file.js';
import { ask, familyHeader, tellUnlessThere } from './messages.js';
import type { Part } from './part.js';

/**
 * Connections that the packet filter keeps track of (net/netfilter/nf_conntrack_netlink.c). They age while nobody looks, so
 * copies are not compared; what the kernel gives to each itself is left out when they are made again.
 */
const NFNL_SUBSYS_CTNETLINK = 1;
const IPCTNL_MSG_CT_NEW = 0;
const IPCTNL_MSG_CT_GET = 1;
/** CTA_COUNTERS_ORIG, CTA_COUNTERS_REPLY, CTA_USE, CTA_ID, CTA_SECCTX, CTA_TIMESTAMP. */
const GIVEN = new Set<number>([9, 10, 11, 12, 19, 20]);

export const conntrack: Part<readonly NetlinkMessage[]> = {
  name: 'tracked connections',
  isLate: true,
  read: () =>
    ask(NETLINK_NETFILTER, (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET, familyHeader(NFGENMSG_SIZE)),
  lines: () => [],
  build(all) {
    for (const { body } of all) {
      const attributes: Attribute[] = listAttributes(body.subarray(NFGENMSG_SIZE)).filter(
        ([type]) => !GIVEN.has(type),
      );
      const request = new Uint8Array([...body.subarray(0, NFGENMSG_SIZE), ...encodeAttributes(attributes)]);
      const type = (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_NEW;
      tellUnlessThere(NETLINK_NETFILTER, type, request);
    }
  },
  ...messagesFile('netns-ct', undefined),
};
