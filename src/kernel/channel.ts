import { fstatSync } from 'node:fs';
import { ERRNO } from '../abi/errno.js';
import { EPOLLIN, EPOLLOUT } from '../abi/event.js';
import { PIPE_BUF, RWF_NOWAIT } from '../abi/fcntl.js';
import { MSG_DONTWAIT, MSG_NOSIGNAL } from '../abi/socket.js';
import { SyscallError } from './errors.js';
import { NativeMemory } from './memory.js';
import { pollNow } from './poll.js';
import { attempt, syscall } from './syscall.js';

/*
 * Pipes and sockets that others gave us, read and written without O_NONBLOCK (which would be theirs too, it belongs to
 * the open file) and without a call that blocks: whoever waits can be called off, and gives up when nothing moves.
 */

export interface Patience {
  /** Called every now and then while nothing moves; a throw ends the waiting. */
  readonly interrupt?: (() => void) | undefined;
  /** How long nothing may move. */
  readonly stall_ms: number;
}

/** Nothing moved for too long. */
export class StallError extends Error {
  readonly code = 'ETIMEDOUT';
}

const LOOK_MS = 100;
const STAGE_BYTES = 1024 * 1024;
const IOVEC_AT = 16;

const small = new NativeMemory(64);
let stage: NativeMemory | undefined;

/** poll(2) on one descriptor. Its value in poll's bits is the same as in epoll's. */
function waitUntil(fd: number, events: number, { interrupt, stall_ms }: Patience, what: string): void {
  const deadline = performance.now() + stall_ms;
  for (;;) {
    small.view.setInt32(0, fd, true);
    small.view.setInt32(4, events, true);
    const left_ms = Math.max(0, deadline - performance.now());
    const slice_ms = Math.ceil(Math.min(left_ms, interrupt === undefined ? left_ms : LOOK_MS));
    if (syscall('poll', [small.address, 1, slice_ms], what) > 0) return;
    interrupt?.();
    if (performance.now() >= deadline)
      throw new StallError(`${what}: nothing moved for ${stall_ms / 1000} s`);
  }
}

/** Some bytes, at least one; 0 at the end. */
export function readSome(fd: number, into: Uint8Array, patience: Patience, what: string): number {
  stage ??= new NativeMemory(STAGE_BYTES);
  for (;;) {
    waitUntil(fd, EPOLLIN, patience, what);
    const count = attempt('read', [fd, stage.address, Math.min(into.length, STAGE_BYTES)]);
    if (count === -ERRNO.EAGAIN) continue;
    if (count < 0) throw new SyscallError('read', -count, what);
    into.set(stage.bytes.subarray(0, count));
    return count;
  }
}

/** All of the bytes. @throws SyscallError (EPIPE when nobody reads any more), StallError */
export function writeWhole(fd: number, bytes: Uint8Array, patience: Patience, what: string): void {
  stage ??= new NativeMemory(STAGE_BYTES);
  const write = writerFor(fd);
  for (let from = 0; from < bytes.length; from += STAGE_BYTES) {
    const part = bytes.subarray(from, from + STAGE_BYTES);
    stage.bytes.set(part);
    for (let done = 0; done < part.length; ) {
      const count = write(stage.address + BigInt(done), part.length - done);
      if (count === -ERRNO.EAGAIN) waitUntil(fd, EPOLLOUT, patience, what);
      else if (count < 0) throw new SyscallError('write', -count, what);
      else done += count;
    }
  }
}

type Write = (address: bigint, length: number) => number;

/** What does not block on this kind of file: send(2) to a socket, pwritev2(2) to a pipe (RWF_NOWAIT, Linux 6.5). */
function writerFor(fd: number): Write {
  const stat = fstatSync(fd);
  if (stat.isSocket())
    return (address, length) => attempt('sendto', [fd, address, length, MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0]);
  if (!stat.isFIFO()) return (address, length) => attempt('write', [fd, address, length]);
  return (address, length) => {
    small.view.setBigUint64(IOVEC_AT, address, true);
    small.view.setBigUint64(IOVEC_AT + 8, BigInt(length), true);
    const count = attempt('pwritev2', [fd, small.address + BigInt(IOVEC_AT), 1, -1, -1, RWF_NOWAIT]);
    return count === -ERRNO.EOPNOTSUPP ? writeShort(fd, address, length) : count;
  };
}

/** Older kernels: a pipe that polls as writable takes PIPE_BUF bytes at once (pipe(7)). */
function writeShort(fd: number, address: bigint, length: number): number {
  if (pollNow(fd, EPOLLOUT) === 0) return -ERRNO.EAGAIN;
  return attempt('write', [fd, address, Math.min(length, PIPE_BUF)]);
}

/** A line of at most `limit` bytes, without its end; undefined when the end of the stream comes instead. */
export class LineReader {
  readonly #fd: number;
  readonly #what: string;
  readonly #limit: number;
  #rest = '';

  constructor(fd: number, what: string, limit: number) {
    this.#fd = fd;
    this.#what = what;
    this.#limit = limit;
  }

  next(patience: Patience): string | undefined {
    const buffer = new Uint8Array(this.#limit);
    for (;;) {
      const end = this.#rest.indexOf('\n');
      if (end >= 0) {
        const line = this.#rest.slice(0, end);
        this.#rest = this.#rest.slice(end + 1);
        return line;
      }
      if (this.#rest.length > this.#limit) throw new RangeError(`${this.#what}: a line without an end`);
      const count = readSome(this.#fd, buffer, patience, this.#what);
      if (count === 0) return undefined;
      this.#rest += Buffer.from(buffer.subarray(0, count)).toString('latin1');
    }
  }
}

/** A duplicate of a descriptor of another process (pidfd_getfd(2), Linux 5.6). */
export function takeDescriptor(pid: number, fd: number, what: string): number {
  const pidfd = syscall('pidfd_open', [pid, 0], `pid ${pid}`);
  try {
    return syscall('pidfd_getfd', [pidfd, fd, 0], what);
  } finally {
    attempt('close', [pidfd]);
  }
}
