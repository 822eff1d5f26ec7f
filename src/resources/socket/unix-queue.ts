import { POLLERR, POLLIN } from '../../abi/event.js';
import { FIONREAD } from '../../abi/ioctl.js';
import * as S from '../../abi/socket.js';
import { insist } from '../../kernel/insist.js';
import { NativeMemory, scratch } from '../../kernel/memory.js';
import { pollNow } from '../../kernel/poll.js';
import { attempt } from '../../kernel/syscall.js';
import type { Descriptor, DumpContext } from '../contract.js';
import { getNumber, setNow, setNumber } from './option-bytes.js';
import { closeAll, type Peeked, peek, peekWhole } from './unix-peek.js';

/**
 * What waits in the receive queue of a Unix socket, by MSG_PEEK: nothing is taken out. SO_PEEK_OFF leads through it and
 * SO_PASSCRED shows who sent; both are put back. A packet of a stream is what was sent with its own descriptors or by
 * somebody else (net/unix/af_unix.c unix_stream_read_generic); other bounds do not count there.
 */
export interface Packet {
  readonly bytes: Uint8Array;
  /** Descriptors in flight, as duplicates of this process. */
  readonly rights: readonly number[];
  /** Who sent it: pid as this process sees it, uid, gid; undefined where the packet does not say. */
  readonly sender: readonly [pid: number, uid: number, gid: number] | undefined;
  /** The sender's address, of datagrams. */
  readonly from: Uint8Array | undefined;
}

export interface Queue {
  readonly packets: readonly Packet[];
  /** Why it is not complete. */
  readonly problem: string | undefined;
  /** SO_PEEK_OFF of the program; −1 where it has none. */
  readonly peekOffset: number;
  /** ECONNRESET waits to be told: the peer was closed before it had read everything. */
  readonly hasError: boolean;
}

/** Largest packet that the default wmem_max lets through, several times over; room grows where it does not do. */
const PACKET_MAX = 1 << 20;

/** `fd` is a duplicate of `descriptor`. */
export function peekQueue(fd: number, type: number, descriptor: Descriptor, context: DumpContext): Queue {
  const peekOffset = getNumber(fd, S.SOL_SOCKET, S.SO_PEEK_OFF) ?? -1;
  const ready = pollNow(fd, POLLIN);
  const hasError = (ready & POLLERR) !== 0;
  const isStream = type === S.SOCK_STREAM;
  const none = { packets: [], problem: undefined, peekOffset, hasError };
  if ((ready & POLLIN) === 0 || (bytesIn(fd) === 0 && (isStream || hasError))) return none;
  if (hasError && !isStream)
    return { ...none, problem: 'an error is pending that a look into its queue would take away' };
  const passes = getNumber(fd, S.SOL_SOCKET, S.SO_PASSCRED) ?? 0;
  using _undo = context.undo?.((tape, take) => {
    const taken = take(descriptor);
    setNumber(tape, taken, S.SOL_SOCKET, S.SO_PEEK_OFF, peekOffset, true);
    setNumber(tape, taken, S.SOL_SOCKET, S.SO_PASSCRED, passes, true);
  });
  setNow(fd, S.SOL_SOCKET, S.SO_PASSCRED, 1);
  const packets: Packet[] = [];
  try {
    const problem = isStream ? peekStream(fd, packets) : peekPackets(fd, packets);
    return { ...none, packets, problem };
  } catch (error) {
    for (const { rights } of packets) closeAll(rights);
    throw error;
  } finally {
    insist(() => {
      setNow(fd, S.SOL_SOCKET, S.SO_PEEK_OFF, peekOffset);
      setNow(fd, S.SOL_SOCKET, S.SO_PASSCRED, passes);
    });
  }
}

/** Of a stream all bytes, of others those of the first packet. */
function bytesIn(fd: number): number {
  return attempt('ioctl', [fd, FIONREAD, scratch.address]) < 0 ? 0 : scratch.view.getInt32(0, true);
}

/** Answers why what it has put into `packets` is not all. */
function peekStream(fd: number, packets: Packet[]): string | undefined {
  const length = bytesIn(fd);
  using memory = new NativeMemory(length);
  if (attempt('recvfrom', [fd, memory.address, 1, S.MSG_PEEK | S.MSG_OOB | S.MSG_DONTWAIT, 0, 0]) >= 0)
    return 'an out-of-band byte is in its queue';
  for (let at = 0; at < length; ) {
    const found = peekAt(fd, at, memory, length - at);
    if (found === 'empty' || found.length === 0)
      return `only ${at} of ${length} bytes in its queue can be read`;
    const bytes = memory.bytes.slice(0, found.length);
    const plain = found.rights.length === 0 ? found.length : bytesBefore(fd, at, memory, found.length);
    const common = { sender: found.sender, from: undefined };
    if (plain > 0) packets.push({ bytes: bytes.slice(0, plain), rights: [], ...common });
    if (found.rights.length > 0) packets.push({ bytes: bytes.slice(plain), rights: found.rights, ...common });
    at += found.length;
  }
  return undefined;
}

/**
 * Of a look that ends with what was sent together with descriptors: how many bytes were sent before that? The look is
 * made again with room for all but the last byte. The kernel copies packet by packet, and answers what it has copied
 * whole when one does not fit into memory that is there.
 */
function bytesBefore(fd: number, at: number, memory: NativeMemory, length: number): number {
  setNow(fd, S.SOL_SOCKET, S.SO_PEEK_OFF, at);
  return peekWhole(fd, memory, length);
}

function peekAt(fd: number, at: number, memory: NativeMemory, length: number): Peeked | 'empty' {
  setNow(fd, S.SOL_SOCKET, S.SO_PEEK_OFF, at);
  return peek(fd, memory, length);
}

function peekPackets(fd: number, packets: Packet[]): string | undefined {
  let memory = new NativeMemory(PACKET_MAX);
  try {
    setNow(fd, S.SOL_SOCKET, S.SO_PEEK_OFF, 0);
    for (let at = 0; ; ) {
      const found = peek(fd, memory, memory.length);
      // The end of packets reads as an empty one, but nobody sent it (with SO_PASSCRED every packet says who).
      if (found === 'empty' || !found.hasSender) return hiddenIn(fd, memory, packets);
      if (found.isCut) {
        closeAll(found.rights);
        const { length } = memory;
        memory[Symbol.dispose]();
        memory = new NativeMemory(length * 4);
        setNow(fd, S.SOL_SOCKET, S.SO_PEEK_OFF, at);
        continue;
      }
      const { rights, sender, from } = found;
      packets.push({ bytes: memory.bytes.slice(0, found.length), rights, sender, from });
      at += found.length;
    }
  } finally {
    memory[Symbol.dispose]();
  }
}

/**
 * A packet without bytes is found by offset once in its life (net/core/datagram.c __skb_try_recv_from_queue looks at
 * skb->peeked); without an offset the first packet always is.
 */
function hiddenIn(fd: number, memory: NativeMemory, packets: readonly Packet[]): string | undefined {
  setNow(fd, S.SOL_SOCKET, S.SO_PEEK_OFF, -1);
  const first = peek(fd, memory, memory.length);
  if (first !== 'empty') closeAll(first.rights);
  const isHidden = first !== 'empty' && first.hasSender && first.length !== packets[0]?.bytes.length;
  return isHidden ? 'packets without bytes that were looked at before are in its queue' : undefined;
}
