import * as ptrace from '../kernel/ptrace.js';
import type { Registers } from '../kernel/registers.js';
import type { FrozenThread, Thread } from '../resources/contract.js';
import {
  cureForThaw,
  hasRestartBlock,
  mayBeInside,
  mayShorten,
  outsideCriticalSection,
  registersForImage,
  remainingOf,
  trueCall,
  withTimeout,
} from '../resources/process/index.js';
import { elapsed_ns, monotonic_ns, type WaitNotes } from './waits.js';

/** What a thread that was just stopped goes on with. */
export interface Stopped extends ptrace.ThreadState {
  /** CLOCK_MONOTONIC, in nanoseconds, before it was told to stop. */
  readonly stop_ns: bigint;
}

/**
 * What the threads are to go on with, set at once: calls that any stop ends with EINTR, epoll_wait(2) among them, would
 * show that to the program if we died before. (Between the stop and this they do, as after any stop: signal(7).)
 */
export function recordAll(tids: readonly number[], stop_ns: bigint): Stopped[] {
  const states = ptrace.getStates(tids);
  const inside = mayBeInside(tids.map((tid, index) => ({ tid, rseq: states[index]?.rseq })));
  return tids.map((tid, index) => {
    const state = states[index];
    if (state === undefined || inside[index] === true || cureForThaw(state.registers) !== state.registers)
      return record(tid, stop_ns);
    return { ...state, stop_ns };
  });
}

function record(tid: number, stop_ns: bigint): Stopped {
  const registers = cure(tid);
  const mask = ptrace.getSignalMask(tid);
  return { registers, mask, xstate: ptrace.getXstate(tid), rseq: ptrace.getRseq(tid), stop_ns };
}

function cure(tid: number): Registers {
  const found = ptrace.getRegisters(tid);
  const registers = outsideCriticalSection(tid, cureForThaw(found), ptrace.getRseq(tid));
  if (registers !== found) ptrace.setRegisters(tid, registers);
  return registers;
}

/** Throws nothing: a task that is not stopped has to be so first. */
export function tryToCure(tid: number): void {
  try {
    cure(tid);
  } catch {
    // It is looked at again.
  }
}

/** A thread as it is frozen, now that its status was read; `notes` are of the wait it was in before. */
export function frozenThread(
  { tid, status }: Thread,
  { registers, mask, xstate, rseq, stop_ns }: Stopped,
  notes: WaitNotes | undefined,
): FrozenThread {
  const context = { tid, call: notes?.call };
  const home = registersForImage(registers, context);
  const frozen = { registers, home, mask, xstate, rseq };
  const call = trueCall(registers, context);
  if (call === undefined) return frozen;
  const elapsed = elapsed_ns(notes, status.voluntarySwitches, stop_ns);
  const remaining_ns = remainingOf(registers, call, tid, elapsed);
  if (remaining_ns === undefined) return frozen;
  if (!mayShorten(registers, call, tid)) return { ...frozen, remaining_ns };
  const shorter = withTimeout(home, call, tid, remaining_ns)?.registers ?? home;
  // A thaw needs nothing for it then: the kernel has kept when it ends.
  if (hasRestartBlock(registers)) return { ...frozen, home: shorter };
  return { ...frozen, home: shorter, remaining_ns, end_ns: stop_ns + remaining_ns };
}

/** Waits that the kernel is to make again from their registers alone go on with what remains now. Throws nothing. */
export function shortenWait({ tid, frozen }: Thread): void {
  if (frozen?.end_ns === undefined) return;
  const left_ns = frozen.end_ns - monotonic_ns();
  try {
    const now = ptrace.getRegisters(tid);
    if (now.ip !== frozen.registers.ip || now.ax !== frozen.registers.ax) return;
    const shorter = withTimeout(now, Number(now.orig_ax), tid, left_ns > 0n ? left_ns : 0n);
    if (shorter !== undefined) ptrace.setRegisters(tid, shorter.registers);
  } catch {
    // It waits longer, or has been killed.
  }
}
