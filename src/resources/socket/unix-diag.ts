import { ERRNO } from '../../abi/errno.js';
import { AF_UNIX } from '../../abi/socket.js';
import { SyscallError } from '../../kernel/errors.js';
import { decodeAttributes } from '../../kernel/netlink/attributes.js';
import { NETLINK_SOCK_DIAG, Netlink } from '../../kernel/netlink/socket.js';

/**
 * What sock_diag(7) says of one Unix socket, by its inode: include/uapi/linux/unix_diag.h, net/unix/diag.c. It answers
 * for the network namespace of this process.
 */
export interface UnixDiag {
  /** SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET. */
  readonly type: number;
  /** TCP_ESTABLISHED 1, TCP_CLOSE 7, TCP_LISTEN 10. */
  readonly state: number;
  /** Bytes of the address; undefined for a socket without one. */
  readonly name: Uint8Array | undefined;
  /** Inode of the peer; 0 where it was closed, undefined where there never was one. */
  readonly peer: number | undefined;
  /** RCV_SHUTDOWN 1, SEND_SHUTDOWN 2. */
  readonly shutdown: number;
  /** rqueue and wqueue, as the kernel counts them. */
  readonly queues: readonly [number, number];
}

const SOCK_DIAG_BY_FAMILY = 20;
const REQUEST_SIZE = 24;
const MESSAGE_SIZE = 16;
const UDIAG_SHOW = { name: 1, peer: 4, queues: 16 } as const;
const UNIX_DIAG = { name: 0, peer: 2, queues: 4, shutdown: 6 } as const;
const ALL_STATES = 0xffff_ffff;
const ANY_COOKIE = 0xffff_ffff;

/** Undefined for an inode that is no Unix socket of this network namespace. */
export function unixDiag(inode: number): UnixDiag | undefined {
  using netlink = new Netlink(NETLINK_SOCK_DIAG, 'sock_diag');
  const request = new DataView(new ArrayBuffer(REQUEST_SIZE));
  request.setUint8(0, AF_UNIX);
  request.setUint32(4, ALL_STATES, true);
  request.setUint32(8, inode, true);
  request.setUint32(12, UDIAG_SHOW.name | UDIAG_SHOW.peer | UDIAG_SHOW.queues, true);
  request.setUint32(16, ANY_COOKIE, true);
  request.setUint32(20, ANY_COOKIE, true);
  try {
    const [answer] = netlink.request(SOCK_DIAG_BY_FAMILY, 0, new Uint8Array(request.buffer));
    return answer === undefined ? undefined : parse(answer.body);
  } catch (error) {
    if (error instanceof SyscallError && error.errno === ERRNO.ENOENT) return undefined;
    throw error;
  }
}

function parse(body: Uint8Array): UnixDiag {
  const attributes = decodeAttributes(body.subarray(MESSAGE_SIZE));
  const number = (type: number, offset = 0): number | undefined => {
    const value = attributes.get(type);
    if (value === undefined || value.length < offset + 4) return undefined;
    return new DataView(value.buffer, value.byteOffset).getUint32(offset, true);
  };
  return {
    type: body[1] ?? 0,
    state: body[2] ?? 0,
    name: attributes.get(UNIX_DIAG.name),
    peer: number(UNIX_DIAG.peer),
    shutdown: attributes.get(UNIX_DIAG.shutdown)?.[0] ?? 0,
    queues: [number(UNIX_DIAG.queues) ?? 0, number(UNIX_DIAG.queues, 4) ?? 0],
  };
}
