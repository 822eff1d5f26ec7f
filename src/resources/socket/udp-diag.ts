import { ERRNO } from '../../abi/errno.js';
import { SyscallError } from '../../kernel/errors.js';
import { decodeAttributes } from '../../kernel/netlink/attributes.js';
import { NETLINK_SOCK_DIAG, Netlink, NLM_F_DUMP } from '../../kernel/netlink/socket.js';

/**
 * What is shut down of the sockets of UDP and UDP-Lite, by inode: sock_diag(7), include/uapi/linux/inet_diag.h. One
 * question for all sockets of a family and a protocol; those without an address are not listed.
 */
const SOCK_DIAG_BY_FAMILY = 20;
const REQUEST_SIZE = 56;
const MESSAGE_SIZE = 72;
const INODE_AT = 68;
const INET_DIAG_SHUTDOWN = 8;
const ALL_STATES = 0xffff_ffff;

export function udpShutdowns(family: number, protocol: number): ReadonlyMap<number, number> {
  const request = new DataView(new ArrayBuffer(REQUEST_SIZE));
  request.setUint8(0, family);
  request.setUint8(1, protocol);
  request.setUint32(4, ALL_STATES, true);
  using netlink = new Netlink(NETLINK_SOCK_DIAG, 'sock_diag');
  const shutdowns = new Map<number, number>();
  try {
    const all = netlink.request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, new Uint8Array(request.buffer));
    for (const { body } of all) {
      const inode = new DataView(body.buffer, body.byteOffset).getUint32(INODE_AT, true);
      const shut = decodeAttributes(body.subarray(MESSAGE_SIZE)).get(INET_DIAG_SHUTDOWN)?.[0] ?? 0;
      if (shut !== 0) shutdowns.set(inode, shut);
    }
  } catch (error) {
    // A kernel without this module (CONFIG_INET_UDP_DIAG) does not tell.
    if (!(error instanceof SyscallError && error.errno === ERRNO.ENOENT)) throw error;
  }
  return shutdowns;
}
