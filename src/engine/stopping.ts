import { ERRNO } from '../abi/errno.js';
import { PTRACE_O_SUSPEND_SECCOMP, PTRACE_O_TRACESYSGOOD } from '../abi/ptrace.js';
import { SyscallError } from '../kernel/errors.js';
import { unlessVanished } from '../kernel/procfs/error.js';
import { keepLocksReady } from '../kernel/procfs/locks.js';
import { readStat, readState } from '../kernel/procfs/stat.js';
import { readStatus } from '../kernel/procfs/status.js';
import * as ptrace from '../kernel/ptrace.js';
import { sleep_us } from '../kernel/syscall.js';
import { together } from '../kernel/together.js';
import {
  describeStatus,
  isEventStop,
  peekAtAll,
  takeStops,
  type WaitStatus,
  waitFor,
} from '../kernel/wait.js';
import type { Sighting } from './look.js';
import { recordAll, type Stopped } from './stopped.js';
import { monotonic_ns, type WaitNotes } from './waits.js';

/** How the threads of a tree are stopped. */

/** A task that could not be stopped. */
export class FreezeError extends Error {
  readonly code = 'EFREEZE';
}

/** What the freeze learned at the stops, by tid and pid: threads are looked at several times before all are stopped. */
export interface Stops {
  /** By which a process was stopped already. */
  readonly signals: Map<number, number>;
  readonly states: Map<number, Stopped>;
  /** Of those who slept before, by tid. */
  waits: ReadonlyMap<number, WaitNotes>;
}

/** Seize and stop all of these; those who end are left out. Throws FreezeError; whoever is in `held` is to be let go then. */
export function stopAll(
  threads: readonly Sighting[],
  held: Set<number>,
  deadline: number,
  stops: Stops,
): void {
  const seized = seizeAll(threads, held);
  const stop_ns = monotonic_ns();
  const lost = together(seized, ({ tid }) => ptrace.interrupt(tid));
  for (const [thread, error] of lost) explainLoss(thread, error, held);
  let running = seized.filter((thread) => !lost.has(thread));
  const stopped: number[] = [];
  for (let spins = 0; running.length > 0; spins++) {
    keepLocksReady();
    const left = lookForStops(running, held, stops, stopped);
    if (left.length > 0 && Date.now() > deadline) throw new FreezeError(explainSleep(left[0] as Sighting));
    // Few: this thread goes before others (Urgency), those that are to stop as well where they have its processor.
    if (left.length === running.length && spins > SPINS) sleep_us(50);
    running = left;
  }
  takeStops(stopped);
  recordAll(stopped, stop_ns).forEach((state, index) => {
    stops.states.set(stopped[index] ?? 0, state);
  });
}

const SPINS = 10;

function seizeAll(threads: readonly Sighting[], held: Set<number>): Sighting[] {
  const failed = together(threads, ({ tid }) => ptrace.seize(tid, OPTIONS));
  for (const thread of threads) if (!failed.has(thread)) held.add(thread.tid);
  return threads.filter((thread) => {
    if (!failed.has(thread)) return true;
    try {
      seizeAnyway(thread.tid);
      held.add(thread.tid);
      return true;
    } catch (error) {
      explainLoss(thread, error, held);
      return false;
    }
  });
}

/** Returns where it is no wonder that it could not be done. EPERM is also what the kernel says of a task that has ended. */
function explainLoss(thread: Sighting, error: unknown, held: Set<number>): void {
  if (!(error instanceof SyscallError)) throw error;
  if (error.errno !== ERRNO.ESRCH && !hasEnded(thread))
    throw new FreezeError(explain(thread, error), { cause: error });
  held.delete(thread.tid);
}

/**
 * Seccomp must not see the calls of a tape; tasks without filters lose nothing, and hosts without the right to are no
 * worse off. Without TRACESYSGOOD a task whose tracer dies while it stops at a system call is sent a real SIGTRAP
 * (ptrace_report_syscall); 128 more than that is no signal, and comes to nothing.
 */
function seizeAnyway(tid: number): void {
  try {
    ptrace.seize(tid, OPTIONS);
  } catch (error) {
    if (!(error instanceof SyscallError) || (error.errno !== ERRNO.EPERM && error.errno !== ERRNO.EINVAL))
      throw error;
    ptrace.seize(tid, PTRACE_O_TRACESYSGOOD);
  }
}

const OPTIONS = PTRACE_O_TRACESYSGOOD | PTRACE_O_SUSPEND_SECCOMP;

/**
 * Add to `stopped` those that have, and note the signal by which their process is stopped already (ptrace(2), "Group-stop").
 * A signal that comes first is delivered, and the stop waited for again. Answers who has not stopped yet.
 */
function lookForStops(
  threads: readonly Sighting[],
  held: Set<number>,
  stops: Stops,
  stopped: number[],
): Sighting[] {
  const statuses = peekAtAll(threads.map(({ tid }) => tid));
  const left = threads.filter((thread, index) => {
    const status = statuses[index] ?? { kind: 'none' };
    if (status.kind === 'none') return true;
    if (status.kind === 'stopped' && isEventStop(status)) {
      if (status.signal !== SIGTRAP) stops.signals.set(thread.pid, status.signal);
      stopped.push(thread.tid);
      return false;
    }
    const goesOn = passOn(thread, status);
    if (!goesOn) held.delete(thread.tid);
    return goesOn;
  });
  return left;
}

const SIGTRAP = 5;

/** Let a thread go on from a stop that was peeked at; false when it has ended. */
export function passOn(thread: { readonly tid: number }, status: WaitStatus): boolean {
  if (status.kind === 'stopped') {
    ptrace.resume(thread.tid, status.event === 0 ? status.signal : 0);
    return true;
  }
  if (status.kind === 'none') throw new FreezeError(`task ${thread.tid}: ${describeStatus(status)}`);
  waitFor(thread.tid, false);
  return false;
}

/**
 * The first of these threads that stays in a wait which no signal ends (state D). It could be seized, but neither be
 * stopped nor be let go of until that is over; so it is not touched.
 */
export function uninterruptible(threads: readonly Sighting[]): Sighting | undefined {
  const deadline = Date.now() + UNINTERRUPTIBLE_MS;
  for (const thread of threads)
    while (thread.state === 'D' && isAsleep(thread)) {
      if (Date.now() > deadline) return thread;
      sleep_us(200);
    }
  return undefined;
}

/** Longer than most waits for a disk. */
const UNINTERRUPTIBLE_MS = 20;

function isAsleep({ pid, tid }: Sighting): boolean {
  return unlessVanished(() => readState(pid, tid)) === 'D';
}

export function explainSleep(thread: Sighting): string {
  return `Cannot stop ${nameSighting(thread)}: it is in a wait that cannot be interrupted (state D)`;
}

function hasEnded({ pid, tid }: Sighting): boolean {
  const state = unlessVanished(() => readState(pid, tid));
  return state === undefined || state === 'Z' || state === 'X';
}

function explain(thread: Sighting, error: SyscallError): string {
  const tracer = unlessVanished(() => readStatus(thread.pid, { tid: thread.tid }))?.tracerPid ?? 0;
  const why = tracer > 0 ? `it is traced by pid ${tracer}` : error.message;
  return `Cannot stop ${nameSighting(thread)}: ${why}`;
}

function nameSighting({ pid, tid }: Sighting): string {
  const comm = unlessVanished(() => readStat(pid, { tid }))?.comm ?? 'it is ending';
  return pid === tid ? `pid ${pid} (${comm})` : `pid ${pid} thread ${tid} (${comm})`;
}
