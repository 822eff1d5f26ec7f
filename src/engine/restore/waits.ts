import { ERRNO } from '../../abi/errno.js';
import { SYSCALL_X86_64 } from '../../abi/syscalls.js';
import * as ptrace from '../../kernel/ptrace.js';
import { NO_SYSCALL, type Registers } from '../../kernel/registers.js';
import { readRemote } from '../../kernel/remote.js';
import { describeStatus, isEventStop, waitFor } from '../../kernel/wait.js';
import { goingOn, hasRestartBlock, withTimeout } from '../../resources/process/index.js';
import { isPassing, LostTaskError } from '../../tape/play.js';

const { nanosleep, clock_nanosleep, futex } = SYSCALL_X86_64;
const SYSCALL_LENGTH = 2n;

/**
 * Make the kernel remember a wait that has begun long ago: poll(2), nanosleep(2), clock_nanosleep(2) and futex(2) keep
 * the end of an interrupted wait in the task's restart block, where nobody but they can put it. So the thread makes
 * its call with what remains of the time, and is interrupted before it sleeps. `registers` are those of registersFromImage,
 * and so are the answer's: the program finds in them what it left there, whatever the call was made with.
 *
 * The thread is stopped, has its memory and descriptors, and blocks all signals; no other thread of its process runs.
 */
export function beginWait(tid: number, registers: Registers, remaining_ns: bigint, name: string): Registers {
  const call = registers.orig_ax;
  const made = madeFor(tid, registers, remaining_ns);
  if (made === undefined) return registers;
  try {
    // SAFETY: the program's own system call instruction, with its own arguments but the time.
    ptrace.setRegisters(tid, {
      ...made.registers,
      ip: registers.ip - SYSCALL_LENGTH,
      ax: call,
      orig_ax: NO_SYSCALL,
    });
    ptrace.resumeToSyscall(tid);
    waitForTrap(tid, `${name}: going on with a wait`);
    // Already in the call, it is told to stop: it will find that out before it would sleep.
    ptrace.interrupt(tid);
    ptrace.resume(tid);
    waitForEventStop(tid, `${name}: going on with a wait`);
  } finally {
    made.undo();
  }
  const after = ptrace.getRegisters(tid);
  if (hasRestartBlock(after)) return goingOn(registers);
  if (isOver(after)) return { ...registers, ax: after.ax, orig_ax: NO_SYSCALL };
  // What it waits for is there, or not any more: it finds that out again, whatever its timeout.
  return registers;
}

/** Undefined where the image does not have the call it tells of, or no stack for a timespec: then it waits longer. */
function madeFor(tid: number, registers: Registers, remaining_ns: bigint): ReturnType<typeof withTimeout> {
  try {
    const code = readRemote(tid, registers.ip - SYSCALL_LENGTH, Number(SYSCALL_LENGTH));
    if (code[0] !== 0x0f || code[1] !== 0x05) return undefined;
    return withTimeout(registers, Number(registers.orig_ax), tid, remaining_ns);
  } catch {
    return undefined;
  }
}

/** The time was over before the call could be interrupted. */
function isOver({ orig_ax, ax }: Registers): boolean {
  const isSleep = orig_ax === BigInt(nanosleep) || orig_ax === BigInt(clock_nanosleep);
  return isSleep
    ? ax === 0n
    : orig_ax === BigInt(futex) && BigInt.asIntN(64, ax) === BigInt(-ERRNO.ETIMEDOUT);
}

function waitForEventStop(tid: number, what: string): void {
  for (;;) {
    const status = waitFor(tid);
    if (isEventStop(status)) return;
    if (!isPassing(tid, status)) throw new LostTaskError(`${what}: ${describeStatus(status)}`);
    ptrace.resume(tid);
  }
}

/** Wait until the task stops at the entry to, or exit from, a system call. */
export function waitForTrap(tid: number, what: string): void {
  const SIGTRAP = 5;
  for (;;) {
    const status = waitFor(tid);
    if (status.kind === 'stopped' && status.event === 0 && status.signal === SIGTRAP) return;
    if (!isPassing(tid, status)) throw new LostTaskError(`${what}: ${describeStatus(status)}`);
    ptrace.resumeToSyscall(tid);
  }
}
