import { ERRNO } from '../../abi/errno.js';
import { AF_UNIX } from '../../abi/socket.js';
import { SyscallError } from '../../kernel/errors.js';
import { decodeAttributes } from '../../kernel/netlink/attributes.js';
import { NETLINK_SOCK_DIAG, Netlink, NLM_F_DUMP } from '../../kernel/netlink/socket.js';

/**
 * What sock_diag(7) says of Unix sockets: include/uapi/linux/unix_diag.h, net/unix/diag.c. It answers for the network
 * namespace of this process, and leaves out connections that nobody has accepted yet.
 */
export interface UnixDiag {
  readonly inode: number;
  /** SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET. */
  readonly type: number;
  /** TCP_ESTABLISHED 1, TCP_CLOSE 7, TCP_LISTEN 10. */
  readonly state: number;
  /** Bytes of the address; undefined for a socket without one. */
  readonly name: Uint8Array | undefined;
  /** The file it is bound to, or was accepted by way of: inode (its low 32 bits) and device as the kernel counts it. */
  readonly file: { readonly inode: number; readonly device: number } | undefined;
  /** Inode of the peer; 0 where it was closed or is not accepted yet, undefined where there never was one. */
  readonly peer: number | undefined;
  /** Of a listening socket: the inodes of who waits to be accepted, in that order; 0 for one that was closed. */
  readonly waiting: readonly number[];
  /** RCV_SHUTDOWN 1, SEND_SHUTDOWN 2. */
  readonly shutdown: number;
  /** rqueue and wqueue, as the kernel counts them; the second of a listening socket is its backlog. */
  readonly queues: readonly [number, number];
}

export const STATE = { established: 1, close: 7, listen: 10 } as const;

const SOCK_DIAG_BY_FAMILY = 20;
const REQUEST_SIZE = 24;
const MESSAGE_SIZE = 16;
/** UDIAG_SHOW_NAME, _VFS, _PEER, _ICONS, _RQLEN. */
const SHOW = 1 | 2 | 4 | 8 | 16;
const UNIX_DIAG = { name: 0, file: 1, peer: 2, icons: 3, queues: 4, shutdown: 6 } as const;
const ALL_STATES = 0xffff_ffff;
const ANY_COOKIE = 0xffff_ffff;

/** Inodes that are known to be Unix sockets; sockfs gives no number twice while one that had it can be remembered. */
const known = new Set<number>();

/** Was this inode seen to be a Unix socket's? */
export function isKnownUnix(inode: number): boolean {
  return known.has(inode);
}

/** All Unix sockets of this network namespace by their inodes: one question, however many there are. */
export function allUnix(): Map<number, UnixDiag> {
  using netlink = new Netlink(NETLINK_SOCK_DIAG, 'sock_diag');
  const answers = netlink.request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, requestFor(0));
  const found = new Map(answers.map(({ body }) => parse(body)).map((diag) => [diag.inode, diag]));
  known.clear();
  for (const inode of found.keys()) known.add(inode);
  return found;
}

/** Undefined for an inode that is no Unix socket of this network namespace. */
export function unixDiag(inode: number): UnixDiag | undefined {
  using netlink = new Netlink(NETLINK_SOCK_DIAG, 'sock_diag');
  try {
    const [answer] = netlink.request(SOCK_DIAG_BY_FAMILY, 0, requestFor(inode));
    return answer === undefined ? undefined : parse(answer.body);
  } catch (error) {
    if (error instanceof SyscallError && error.errno === ERRNO.ENOENT) return undefined;
    throw error;
  }
}

/** struct unix_diag_req */
function requestFor(inode: number): Uint8Array {
  const request = new DataView(new ArrayBuffer(REQUEST_SIZE));
  request.setUint8(0, AF_UNIX);
  request.setUint32(4, ALL_STATES, true);
  request.setUint32(8, inode, true);
  request.setUint32(12, SHOW, true);
  request.setUint32(16, ANY_COOKIE, true);
  request.setUint32(20, ANY_COOKIE, true);
  return new Uint8Array(request.buffer);
}

/** struct unix_diag_msg and its attributes. */
function parse(body: Uint8Array): UnixDiag {
  const attributes = decodeAttributes(body.subarray(MESSAGE_SIZE));
  const numbers = (type: number): number[] => {
    const value = attributes.get(type);
    if (value === undefined) return [];
    const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
    return Array.from({ length: value.length >> 2 }, (_, index) => view.getUint32(index * 4, true));
  };
  const [received = 0, sent = 0] = numbers(UNIX_DIAG.queues);
  const [fileInode, device = 0] = numbers(UNIX_DIAG.file);
  return {
    inode: new DataView(body.buffer, body.byteOffset).getUint32(4, true),
    type: body[1] ?? 0,
    state: body[2] ?? 0,
    name: attributes.get(UNIX_DIAG.name),
    file: fileInode === undefined ? undefined : { inode: fileInode, device },
    peer: numbers(UNIX_DIAG.peer)[0],
    waiting: numbers(UNIX_DIAG.icons),
    shutdown: attributes.get(UNIX_DIAG.shutdown)?.[0] ?? 0,
    queues: [received, sent],
  };
}
