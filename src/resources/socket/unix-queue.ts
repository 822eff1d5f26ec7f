import { ERRNO } from '../../abi/errno.js';
import { FIONREAD } from '../../abi/ioctl.js';
import * as S from '../../abi/socket.js';
import { SyscallError } from '../../kernel/errors.js';
import { NativeMemory, scratch } from '../../kernel/memory.js';
import { attempt, syscall } from '../../kernel/syscall.js';
import type { Descriptor, DumpContext } from '../contract.js';

/**
 * What waits in the receive queue of a Unix socket, by MSG_PEEK: nothing is taken out. Packets are walked by
 * SO_PEEK_OFF, which is put back; descriptors in flight (SCM_RIGHTS) cannot be saved and are said to be there.
 */
export interface Queue {
  readonly packets: readonly Uint8Array[];
  /** Why it is not complete. */
  readonly problem: string | undefined;
}

const CONTROL_SIZE = 8192;
/** Largest datagram that a default wmem_max lets through, several times over. */
const PACKET_MAX = 1 << 20;

/** `fd` is a duplicate of `descriptor`. */
export function peekQueue(fd: number, type: number, descriptor: Descriptor, context: DumpContext): Queue {
  const before = peekOffset(fd);
  const isStream = type === S.SOCK_STREAM;
  // Without an offset a look changes nothing, and tells of the first packet, or the whole stream.
  if (before < 0 && isStream) return peekStream(fd);
  if (before < 0 && isEmpty(fd)) return { packets: [], problem: undefined };
  using _undo = context.undo?.((tape, take) => {
    const offset = new Uint8Array(4);
    new DataView(offset.buffer).setInt32(0, before, true);
    const option = [S.SOL_SOCKET, S.SO_PEEK_OFF, tape.space(offset), offset.length] as const;
    tape.call('setsockopt', [take(descriptor), ...option], 'any');
  });
  setPeekOffset(fd, 0);
  try {
    return isStream ? peekStream(fd) : peekPackets(fd);
  } finally {
    setPeekOffset(fd, before);
  }
}

function isEmpty(fd: number): boolean {
  return attempt('recvfrom', [fd, scratch.address, 1, S.MSG_PEEK | S.MSG_DONTWAIT, 0, 0]) === -ERRNO.EAGAIN;
}

function peekStream(fd: number): Queue {
  syscall('ioctl', [fd, FIONREAD, scratch.address], 'a Unix socket');
  const length = scratch.view.getInt32(0, true);
  if (length === 0) return { packets: [], problem: undefined };
  using memory = new NativeMemory(length);
  const peeked = peek(fd, memory, length);
  if (peeked === 'empty') return { packets: [], problem: `its queue of ${length} bytes cannot be read` };
  if (peeked.hasDescriptors) return { packets: [], problem: 'descriptors are in flight in its queue' };
  if (peeked.length !== length)
    return {
      packets: [],
      problem: `only ${peeked.length} of ${length} bytes in its queue can be read at once`,
    };
  return { packets: [memory.bytes.slice(0, length)], problem: undefined };
}

function peekPackets(fd: number): Queue {
  using memory = new NativeMemory(PACKET_MAX);
  const packets: Uint8Array[] = [];
  for (;;) {
    const peeked = peek(fd, memory, PACKET_MAX);
    if (peeked === 'empty') return { packets, problem: undefined };
    if (peeked.hasDescriptors) return { packets, problem: 'descriptors are in flight in its queue' };
    // The offset does not move past a packet without bytes.
    if (peeked.length === 0) return { packets, problem: 'a packet without bytes is in its queue' };
    packets.push(memory.bytes.slice(0, peeked.length));
  }
}

function peekOffset(fd: number): number {
  scratch.view.setUint32(8, 4, true);
  syscall('getsockopt', [fd, S.SOL_SOCKET, S.SO_PEEK_OFF, scratch.address, scratch.address + 8n]);
  return scratch.view.getInt32(0, true);
}

function setPeekOffset(fd: number, offset: number): void {
  scratch.view.setInt32(0, offset, true);
  syscall('setsockopt', [fd, S.SOL_SOCKET, S.SO_PEEK_OFF, scratch.address, 4], 'SO_PEEK_OFF');
}

/** One recvmsg(2); descriptors that come along are closed. */
function peek(
  fd: number,
  memory: NativeMemory,
  length: number,
): { length: number; hasDescriptors: boolean } | 'empty' {
  const { view, address } = scratch;
  const iov = 64;
  const control = 128;
  scratch.bytes.fill(0, 0, control);
  view.setBigUint64(16, address + BigInt(iov), true);
  view.setBigUint64(24, 1n, true);
  view.setBigUint64(32, address + BigInt(control), true);
  view.setBigUint64(40, BigInt(CONTROL_SIZE), true);
  view.setBigUint64(iov, memory.address, true);
  view.setBigUint64(iov + 8, BigInt(length), true);
  const flags = S.MSG_PEEK | S.MSG_DONTWAIT | S.MSG_CMSG_CLOEXEC;
  const result = attempt('recvmsg', [fd, address, flags]);
  if (result === -ERRNO.EAGAIN) return 'empty';
  if (result < 0) throw new SyscallError('recvmsg', -result, 'a Unix socket');
  return { length: result, hasDescriptors: closeDescriptors(control, Number(view.getBigUint64(40, true))) };
}

function closeDescriptors(start: number, length: number): boolean {
  const { view } = scratch;
  let found = false;
  for (let at = start; at + 16 <= start + length; ) {
    const size = Number(view.getBigUint64(at, true));
    if (size < 16) break;
    const isRights =
      view.getInt32(at + 8, true) === S.SOL_SOCKET && view.getInt32(at + 12, true) === S.SCM_RIGHTS;
    if (isRights) {
      found = true;
      const fds: number[] = [];
      for (let each = at + 16; each + 4 <= at + size; each += 4) fds.push(view.getInt32(each, true));
      for (const fd of fds) syscall('close', [fd]);
    }
    at += (size + 7) & ~7;
  }
  return found;
}
