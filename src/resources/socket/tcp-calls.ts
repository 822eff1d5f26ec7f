import { ERRNO } from '../../abi/errno.js';
import * as S from '../../abi/socket.js';
import { SyscallError } from '../../kernel/errors.js';
import { NativeMemory, scratch } from '../../kernel/memory.js';
import { attempt, syscall } from '../../kernel/syscall.js';
import { getBytes, getNumber, setNow } from './option-bytes.js';

/** Calls on duplicates of TCP sockets of the tree (tcp(7), net/ipv4/tcp.c). */

export function setTcp(fd: number, option: number, value: number): void {
  setNow(fd, S.SOL_TCP, option, value);
}

/** An option that every TCP socket has. */
export function getTcp(fd: number, option: number): number {
  const value = getNumber(fd, S.SOL_TCP, option);
  if (value === undefined) throw new Error(`a TCP socket has no option ${option}`);
  return value;
}

export function sizeBy(fd: number, request: number): number {
  syscall('ioctl', [fd, request, scratch.address], 'a TCP socket');
  return scratch.view.getInt32(0, true);
}

export interface TcpInfo {
  readonly state: number;
  /** TCPI_OPT_TIMESTAMPS 1, SACK 2, WSCALE 4, ECN 8. */
  readonly options: number;
  readonly sendScale: number;
  readonly receiveScale: number;
  /** Of a listener: how many connections wait, and how many may. */
  readonly waiting: number;
  readonly backlog: number;
}

const UNACKED_AT = 24;
const SACKED_AT = 28;
const INFO_SIZE = 32;

/** The head of struct tcp_info. */
export function tcpInfo(fd: number): TcpInfo {
  const bytes = getBytes(fd, S.SOL_TCP, S.TCP_INFO, INFO_SIZE);
  if (bytes === undefined || bytes.length < INFO_SIZE) throw new Error('TCP_INFO is too short');
  const scales = bytes[6] ?? 0;
  const view = new DataView(bytes.buffer);
  return {
    state: bytes[0] ?? 0,
    options: bytes[5] ?? 0,
    sendScale: scales & 15,
    receiveScale: scales >> 4,
    waiting: view.getUint32(UNACKED_AT, true),
    backlog: view.getUint32(SACKED_AT, true),
  };
}

/** The rest of a first skb whose head has been acknowledged is all there in a look at the queue. */
const SLACK = 1 << 17;

/** Memory for a look at a queue, as much as the largest so far needed. What was seen is there until the next look. */
export class Room implements Disposable {
  #memory: NativeMemory | undefined;

  reserve(length: number): NativeMemory {
    if (this.#memory !== undefined && this.#memory.length >= length) return this.#memory;
    this[Symbol.dispose]();
    this.#memory = new NativeMemory(length);
    return this.#memory;
  }

  [Symbol.dispose](): void {
    this.#memory?.[Symbol.dispose]();
    this.#memory = undefined;
  }
}

/**
 * The last `length` bytes of the queue that TCP_REPAIR_QUEUE has chosen; fewer where there are not as many. They lie in
 * the room.
 */
export function peekQueue(fd: number, length: number, room: Room): Uint8Array {
  if (length <= 0) return new Uint8Array();
  for (let size = length + SLACK; ; size *= 2) {
    const memory = room.reserve(size);
    const flags = S.MSG_PEEK | S.MSG_DONTWAIT;
    const got = attempt('recvfrom', [fd, memory.address, memory.length, flags, 0, 0]);
    // The send queue is copied as a whole, or not at all (tcp_peek_sndq).
    if (got === -ERRNO.EFAULT && size < LENGTH_MAX) continue;
    if (got === -ERRNO.EAGAIN) return new Uint8Array();
    if (got < 0) throw new SyscallError('recvfrom', -got, 'the queue of a TCP socket');
    return memory.bytes.subarray(Math.max(0, got - length), got);
  }
}

const LENGTH_MAX = 1 << 30;
