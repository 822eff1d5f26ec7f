import { ERRNO } from '../../abi/errno.js';
import * as S from '../../abi/socket.js';
import { insist } from '../../kernel/insist.js';
import { NativeMemory, scratch } from '../../kernel/memory.js';
import { attempt } from '../../kernel/syscall.js';
import type { Descriptor, DumpContext } from '../contract.js';
import type { SocketIdentity } from '../description/identify.js';
import type { Datagram } from './beside-codec.js';
import { controlMessages } from './control.js';
import { readSockaddr, sockaddrBytes } from './inet-address.js';
import { getNumber, setNow, setNumber } from './option-bytes.js';
import { retryUnread } from './unread.js';

/**
 * Datagrams of UDP that nobody has read yet, looked at and left there: MSG_PEEK goes on from one to the next where the
 * socket has a peek offset (socket(7) SO_PEEK_OFF), which is set for the time of it. So are the options by which the
 * kernel tells where a datagram was sent to, its time to live and type of service. A datagram without bytes is not shown
 * a second time to whoever peeks with an offset; where the first of a queue is such a one, a second dump waits for it to
 * be read.
 */
type Setting = readonly [level: number, option: number, value: number];

const V4_SETTINGS: readonly Setting[] = [
  [S.SOL_IP, S.IP_RECVORIGDSTADDR, 1],
  [S.SOL_IP, S.IP_RECVTTL, 1],
  [S.SOL_IP, S.IP_RECVTOS, 1],
];
const V6_SETTINGS: readonly Setting[] = [
  [S.SOL_IPV6, S.IPV6_RECVORIGDSTADDR, 1],
  [S.SOL_IPV6, S.IPV6_RECVHOPLIMIT, 1],
  [S.SOL_IPV6, S.IPV6_RECVTCLASS, 1],
];
const PEEK: Setting = [S.SOL_SOCKET, S.SO_PEEK_OFF, 0];

/** `fd` is a duplicate of `descriptor`. */
export function peekDatagrams(
  fd: number,
  { family }: SocketIdentity,
  descriptor: Descriptor,
  context: DumpContext,
): Datagram[] {
  const wanted = [...V4_SETTINGS, ...(family === S.AF_INET6 ? V6_SETTINGS : []), PEEK];
  const before = wanted.map(([level, option]): Setting => [level, option, getNumber(fd, level, option) ?? 0]);
  using _undo = context.undo?.((tape, take) => {
    const taken = take(descriptor);
    for (const [level, option, value] of before) setNumber(tape, taken, level, option, value, true);
  });
  try {
    for (const setting of wanted) setNow(fd, ...setting);
    const datagrams = peekAll(fd) ?? retryUnread(descriptor, 'an unread error', context);
    if (context.options.dropPackets !== true && hidesFirst(fd, datagrams))
      retryUnread(descriptor, 'unread datagrams without bytes that were looked at before', context);
    return datagrams;
  } finally {
    insist(() => {
      for (const setting of before) setNow(fd, ...setting);
    });
  }
}

const DATAGRAM_MAX = 1 << 17;
/** More than any receive buffer holds. */
const DATAGRAMS_MAX = 1 << 20;

function peekAll(fd: number): Datagram[] | undefined {
  using memory = new NativeMemory(DATAGRAM_MAX);
  const datagrams: Datagram[] = [];
  while (datagrams.length < DATAGRAMS_MAX) {
    const peeked = peek(fd, memory);
    if (peeked === undefined) return datagrams;
    if (peeked === 'error') return undefined;
    datagrams.push(...peeked);
  }
  throw new Error(`more than ${DATAGRAMS_MAX} datagrams in a queue`);
}

/** Without an offset the first of all is seen however often it was looked at (net/core/datagram.c, skb->peeked). */
function hidesFirst(fd: number, datagrams: readonly Datagram[]): boolean {
  using memory = new NativeMemory(DATAGRAM_MAX);
  setNow(fd, S.SOL_SOCKET, S.SO_PEEK_OFF, -1);
  const first = peek(fd, memory);
  return first !== undefined && (first === 'error' || first[0]?.data !== datagrams[0]?.data);
}

const NAME_AT = 64;
const NAME_SIZE = 128;
const VECTOR_AT = NAME_AT + NAME_SIZE;
const CONTROL_AT = 256;
const CONTROL_SIZE = 1024;

/** One recvmsg(2): a datagram, or several that the kernel has put together (UDP_GRO). */
function peek(fd: number, memory: NativeMemory): Datagram[] | undefined | 'error' {
  const { view, address, bytes } = scratch;
  bytes.fill(0, 0, CONTROL_AT);
  view.setBigUint64(0, address + BigInt(NAME_AT), true);
  view.setUint32(8, NAME_SIZE, true);
  view.setBigUint64(16, address + BigInt(VECTOR_AT), true);
  view.setBigUint64(24, 1n, true);
  view.setBigUint64(32, address + BigInt(CONTROL_AT), true);
  view.setBigUint64(40, BigInt(CONTROL_SIZE), true);
  view.setBigUint64(VECTOR_AT, memory.address, true);
  view.setBigUint64(VECTOR_AT + 8, BigInt(memory.length), true);
  const length = attempt('recvmsg', [fd, address, S.MSG_PEEK | S.MSG_DONTWAIT]);
  if (length === -ERRNO.EAGAIN) return undefined;
  // An error of ICMP came just now.
  if (length < 0) return 'error';
  const from = hex(sockaddrBytes(readSockaddr(bytes.subarray(NAME_AT, NAME_AT + NAME_SIZE))));
  const controlled = Number(view.getBigUint64(40, true));
  const { size, ...header } = headerOf(bytes.slice(CONTROL_AT, CONTROL_AT + controlled));
  const data = memory.bytes.slice(0, length);
  return split(data, size).map((part) => ({ from, ...header, data: Buffer.from(part).toString('base64') }));
}

interface Header {
  to?: string;
  ttl?: number;
  tos?: number;
  /** Of the parts of what was put together, in bytes. */
  size?: number;
}

function headerOf(control: Uint8Array): Header {
  const header: Header = {};
  for (const { level, type, data } of controlMessages(control)) {
    const number = (): number =>
      data.length >= 4 ? new DataView(data.buffer, data.byteOffset).getInt32(0, true) : (data[0] ?? 0);
    if (level === S.SOL_IP && type === S.IP_ORIGDSTADDR) header.to = hex(sockaddrBytes(readSockaddr(data)));
    if (level === S.SOL_IPV6 && type === S.IPV6_ORIGDSTADDR)
      header.to = hex(sockaddrBytes(readSockaddr(data)));
    if (level === S.SOL_IP && type === S.IP_TTL) header.ttl = number();
    if (level === S.SOL_IP && type === S.IP_TOS) header.tos = number();
    if (level === S.SOL_IPV6 && type === S.IPV6_HOPLIMIT) header.ttl = number();
    if (level === S.SOL_IPV6 && type === S.IPV6_TCLASS) header.tos = number();
    if (level === S.SOL_UDP && type === S.UDP_GRO) header.size = number();
  }
  return header;
}

function split(data: Uint8Array, size: number | undefined): Uint8Array[] {
  if (size === undefined || size <= 0 || data.length <= size) return [data];
  return Array.from({ length: Math.ceil(data.length / size) }, (_, index) =>
    data.subarray(index * size, (index + 1) * size),
  );
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
