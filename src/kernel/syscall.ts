import { ERRNO } from '../abi/errno.js';
import type { SyscallName } from '../abi/syscalls.js';
import { SyscallError } from './errors.js';
import { type Argument, call } from './ffi.js';

/** A system call that must succeed; −EINTR (Node's own signals reach the main thread) is retried. `object` names what it was about. */
export function syscall(name: SyscallName, args: readonly Argument[], object?: string): number {
  const result = attempt(name, args);
  if (result < 0) throw new SyscallError(name, -result, object);
  return result;
}

/** As `syscall`, but a failure is an answer: the result or −errno. */
export function attempt(name: SyscallName, args: readonly Argument[]): number {
  for (;;) {
    const result = call(name, args[0], args[1], args[2], args[3], args[4], args[5]);
    // After close(2) the descriptor is gone even then.
    if (result !== -ERRNO.EINTR || name === 'close') return result;
  }
}

const clock = new Int32Array(new SharedArrayBuffer(4));

/** Block this thread for about so many microseconds. */
export function sleep_us(duration_us: number): void {
  if (duration_us > 0) Atomics.wait(clock, 0, 0, duration_us / 1000);
}
