import { AF_NETLINK, AF_UNIX, SOCK_CLOEXEC, SOCK_RAW } from '../../abi/socket.js';
import { OwnedFd } from '../../kernel/fd.js';
import { scratch } from '../../kernel/memory.js';
import { syscall } from '../../kernel/syscall.js';

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

const NETLINK_SOCK_DIAG = 4;
const SOCK_DIAG_BY_FAMILY = 20;
const NLM_F_REQUEST = 1;
const NLMSG_ERROR = 2;
const HEADER_SIZE = 16;
const REQUEST_SIZE = HEADER_SIZE + 24;
const MESSAGE_SIZE = 16;
const UDIAG_SHOW = { name: 1, peer: 4, queues: 16 } as const;
const UNIX_DIAG = { name: 0, peer: 2, queues: 4, shutdown: 6 } as const;
const ALL_STATES = 0xffff_ffff;
const ANY_COOKIE = 0xffff_ffff;

/** Undefined for an inode that is no Unix socket of this network namespace. */
export function unixDiag(inode: number): UnixDiag | undefined {
  using netlink = new OwnedFd(
    syscall('socket', [AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG], 'sock_diag'),
  );
  const { view, address } = scratch;
  new Uint8Array(scratch.bytes.buffer, 0, REQUEST_SIZE).fill(0);
  view.setUint32(0, REQUEST_SIZE, true);
  view.setUint16(4, SOCK_DIAG_BY_FAMILY, true);
  view.setUint16(6, NLM_F_REQUEST, true);
  view.setUint8(HEADER_SIZE, AF_UNIX);
  view.setUint32(HEADER_SIZE + 4, ALL_STATES, true);
  view.setUint32(HEADER_SIZE + 8, inode, true);
  view.setUint32(HEADER_SIZE + 12, UDIAG_SHOW.name | UDIAG_SHOW.peer | UDIAG_SHOW.queues, true);
  view.setUint32(HEADER_SIZE + 16, ANY_COOKIE, true);
  view.setUint32(HEADER_SIZE + 20, ANY_COOKIE, true);
  syscall('sendto', [netlink.fd, address, REQUEST_SIZE, 0, 0, 0], 'sock_diag');
  const length = syscall('recvfrom', [netlink.fd, address, scratch.length, 0, 0, 0], 'sock_diag');
  if (view.getUint16(4, true) === NLMSG_ERROR) return undefined;
  return parse(scratch.bytes.slice(0, length));
}

function parse(bytes: Uint8Array): UnixDiag {
  const view = new DataView(bytes.buffer);
  const attributes = new Map<number, Uint8Array>();
  const end = Math.min(view.getUint32(0, true), bytes.length);
  for (let at = HEADER_SIZE + MESSAGE_SIZE; at + 4 <= end; ) {
    const length = view.getUint16(at, true);
    if (length < 4) break;
    attributes.set(view.getUint16(at + 2, true), bytes.subarray(at + 4, at + length));
    at += (length + 3) & ~3;
  }
  const number = (type: number, offset = 0): number | undefined => {
    const value = attributes.get(type);
    if (value === undefined || value.length < offset + 4) return undefined;
    return new DataView(value.buffer, value.byteOffset).getUint32(offset, true);
  };
  return {
    type: view.getUint8(HEADER_SIZE + 1),
    state: view.getUint8(HEADER_SIZE + 2),
    name: attributes.get(UNIX_DIAG.name),
    peer: number(UNIX_DIAG.peer),
    shutdown: attributes.get(UNIX_DIAG.shutdown)?.[0] ?? 0,
    queues: [number(UNIX_DIAG.queues) ?? 0, number(UNIX_DIAG.queues, 4) ?? 0],
  };
}
