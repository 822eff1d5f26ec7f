import { ERRNO } from '../abi/errno.js';
import {
  PTRACE_CONT,
  PTRACE_DETACH,
  PTRACE_INTERRUPT,
  PTRACE_O_SUSPEND_SECCOMP,
  PTRACE_O_TRACESYSGOOD,
} from '../abi/ptrace.js';
import { SyscallError } from '../kernel/errors.js';
import { insist } from '../kernel/insist.js';
import { unlessVanished } from '../kernel/procfs/error.js';
import { keepLocksReady } from '../kernel/procfs/locks.js';
import { KeptFiles } from '../kernel/procfs/read.js';
import { readStat, readState } from '../kernel/procfs/stat.js';
import { readStatus } from '../kernel/procfs/status.js';
import * as ptrace from '../kernel/ptrace.js';
import { attempt, sleep_us, syscall } from '../kernel/syscall.js';
import {
  describeStatus,
  isEventStop,
  isSyscallStop,
  noteThreads,
  peekAt,
  type WaitStatus,
  waitFor,
} from '../kernel/wait.js';
import { type FrozenThread, nameOf, type Process, type Thread } from '../resources/contract.js';
import { Barrier } from '../tape/barrier.js';
import { hasMetStop, SIGSTOP, takeStop } from '../tape/stops.js';
import { look, openFor, type Sighting, sightings } from './look.js';
import { frozenThread, record, type Stopped, shortenWait, tryToCure } from './stopped.js';
import { monotonic_ns, noteWaits, type WaitNotes } from './waits.js';

/**
 * Freezing a tree with ptrace: SEIZE and INTERRUPT every thread, wait for the stops, look again, until a look finds
 * nobody new. Seizing leaves no trace in a task, and a seized task goes on by itself if we die.
 */
export class Frozen implements Disposable {
  /** As they are while frozen, parents first. */
  readonly processes: readonly Process[];
  readonly #tids: Set<number>;
  #held = true;
  /** For whom a SIGSTOP waits, and who is on the way to it. */
  readonly #pinned = new Set<Thread>();
  readonly #stopping = new Set<Thread>();

  readonly #files: KeptFiles;

  private constructor(processes: readonly Process[], tids: Set<number>, files: KeptFiles) {
    this.processes = processes;
    this.#tids = tids;
    this.#files = files;
    for (const { pid, threads } of processes) noteThreads(pid, threads.length > 1);
  }

  /** `beforeFirst` is called when all has been done that need not wait until somebody stops. Throws FreezeError after letting everybody go. */
  static freeze(root: number, timeout_ms: number, beforeFirst: () => void = () => {}): Frozen {
    const deadline = Date.now() + timeout_ms;
    const held = new Set<number>();
    const stops: Stops = { signals: new Map(), states: new Map(), waits: new Map() };
    let files: KeptFiles | undefined;
    try {
      for (let isFirst = true; ; isFirst = false) {
        // At first it is only asked who there is. When nobody is new any more, all has been read of everybody.
        const processes = isFirst ? [] : look(root, stops.signals);
        const seen = isFirst ? sightings(root) : processes.flatMap(living).map(sightingOf);
        const fresh = seen.filter(({ tid }) => !held.has(tid));
        if (fresh.length === 0 && !isFirst) {
          for (const thread of processes.flatMap(living)) thread.frozen = stateOf(thread, stops);
          return new Frozen(processes, held, files ?? new KeptFiles());
        }
        const asleep = uninterruptible(fresh);
        if (isFirst) {
          stops.waits = noteWaits(seen);
          files = openFor(seen);
          beforeFirst();
        }
        if (asleep === undefined) stopAll(fresh, held, deadline, stops);
        else if (Date.now() > deadline) throw new FreezeError(explainSleep(asleep));
        else {
          // It may be waiting for one of us: a vfork(2) ends when the child goes on.
          letAllGo(held);
          held.clear();
          stops.signals.clear();
          sleep_us(1000);
        }
      }
    } catch (error) {
      insist(() => letAllGo(held, true));
      files?.[Symbol.dispose]();
      throw error;
    }
  }

  get threads(): Thread[] {
    return this.processes.flatMap(living);
  }

  /** Let every thread go on where it was. */
  thaw(): void {
    if (!this.#held) return;
    insist(() => this.unpin());
    insist(() => {
      for (const { tid, process } of this.threads) {
        if (hasMetStop(tid) && process.state === 'alive') kill(process.pid, SIGSTOP);
        takeStop(tid);
      }
    });
    for (const thread of this.threads) shortenWait(thread);
    insist(() => letAllGo(this.#tids));
    this.#forget();
  }

  /** Their numbers will be others', or their own again after a restore. */
  #forget(): void {
    this.#held = false;
    this.#files[Symbol.dispose]();
    for (const tid of this.#tids) takeStop(tid);
    for (const { pid } of this.processes) noteThreads(pid, false);
  }

  /** SIGKILL every process and wait until the last thread is gone. */
  kill(): void {
    if (!this.#held) return;
    insist(() => {
      for (const process of this.processes) if (process.state !== 'zombie') kill(process.pid, SIGKILL);
    });
    // A leader cannot be waited for before its threads are: each of them is a zombie of ours until then.
    const leaders = new Set(this.processes.map(({ pid }) => pid));
    insist(() => {
      for (const tid of this.#tids) if (!leaders.has(tid)) reap(tid);
      for (const tid of this.#tids) if (leaders.has(tid)) reap(tid);
    });
    this.#forget();
  }

  /**
   * Make sure that nobody runs on should this process die now: a SIGSTOP waits for every thread, and is the first thing
   * it meets. What becomes of them then is the guardian's to decide.
   */
  pin(): void {
    for (const thread of this.threads)
      if (!this.#pinned.has(thread) && signalThread(thread, SIGSTOP)) this.#pinned.add(thread);
  }

  /** Take the SIGSTOPs back, each at the point of its delivery. */
  unpin(): void {
    for (const thread of this.#pinned) {
      if (attempt('ptrace', [PTRACE_CONT, thread.tid, 0, 0]) >= 0) this.#stopping.add(thread);
      this.#pinned.delete(thread);
    }
    for (const thread of this.#stopping) {
      swallowStop(thread);
      this.#stopping.delete(thread);
    }
  }

  /** Let go of a pinned tree: it stays stopped until somebody continues it. */
  leaveStopped(): void {
    insist(() => this.pin());
    this.#pinned.clear();
    this.thaw();
  }

  [Symbol.dispose](): void {
    this.thaw();
  }
}

const SIGKILL = 9;
const SIGTRAP = 5;

/** A task that could not be stopped. */
export class FreezeError extends Error {
  readonly code = 'EFREEZE';
}

function living(process: Process): Thread[] {
  return process.state === 'zombie' ? [] : process.threads;
}

/**
 * Seccomp must not see the calls of a tape; tasks without filters lose nothing, and hosts without the right to are no
 * worse off. Without TRACESYSGOOD a task whose tracer dies while it stops at a system call is sent a real SIGTRAP
 * (ptrace_report_syscall); 128 more than that is no signal, and comes to nothing.
 */
function seizeOne(tid: number): void {
  try {
    ptrace.seize(tid, PTRACE_O_TRACESYSGOOD | PTRACE_O_SUSPEND_SECCOMP);
  } catch (error) {
    if (!(error instanceof SyscallError) || (error.errno !== ERRNO.EPERM && error.errno !== ERRNO.EINVAL))
      throw error;
    ptrace.seize(tid, PTRACE_O_TRACESYSGOOD);
  }
}

function sightingOf({ process, tid, status }: Thread): Sighting {
  return { pid: process.pid, tid, state: status.state };
}

function nameSighting({ pid, tid }: Sighting): string {
  const comm = unlessVanished(() => readStat(pid, { tid }))?.comm ?? 'it is ending';
  return pid === tid ? `pid ${pid} (${comm})` : `pid ${pid} thread ${tid} (${comm})`;
}

function stopAll(threads: readonly Sighting[], held: Set<number>, deadline: number, stops: Stops): void {
  const stopping: Sighting[] = [];
  const stop_ns = monotonic_ns();
  for (const thread of threads) {
    try {
      seizeOne(thread.tid);
      held.add(thread.tid);
      ptrace.interrupt(thread.tid);
      stopping.push(thread);
      keepLocksReady();
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      // EPERM is also what the kernel says of a task that has ended.
      if (error.errno === ERRNO.ESRCH || hasEnded(thread)) held.delete(thread.tid);
      else throw new FreezeError(explain(thread, error), { cause: error });
    }
  }
  for (const thread of stopping) {
    const signal = waitForStop(thread, deadline);
    if (signal === undefined) held.delete(thread.tid);
    else {
      stops.states.set(thread.tid, record(thread.tid, stop_ns));
      if (signal !== SIGTRAP) stops.signals.set(thread.pid, signal);
    }
    keepLocksReady();
  }
}

/** What the freeze learned at the stops, by tid and pid: threads are looked at several times before all are stopped. */
interface Stops {
  /** By which a process was stopped already. */
  readonly signals: Map<number, number>;
  readonly states: Map<number, Stopped>;
  /** Of those who slept before, by tid. */
  waits: ReadonlyMap<number, WaitNotes>;
}

function stateOf(thread: Thread, { states, waits }: Stops): FrozenThread {
  const state = states.get(thread.tid);
  if (state === undefined) throw new FreezeError(`${nameOf(thread)} was not stopped`);
  return frozenThread(thread, state, waits.get(thread.tid));
}

/**
 * The first of these threads that stays in a wait which no signal ends (state D). It could be seized, but neither be
 * stopped nor be let go of until that is over; so it is not touched.
 */
function uninterruptible(threads: readonly Sighting[]): Sighting | undefined {
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

function explainSleep(thread: Sighting): string {
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

/**
 * The signal that its stop reports: SIGTRAP, or the one by which its process is stopped already (ptrace(2), "Group-stop").
 * Undefined when it ended. A signal that comes first is delivered, and the stop waited for again.
 */
function waitForStop(thread: Sighting, deadline: number): number | undefined {
  for (let spins = 0; ; ) {
    const status = peekAt(thread.tid);
    if (isEventStop(status) && status.kind === 'stopped') {
      waitFor(thread.tid);
      return status.signal;
    }
    if (status.kind === 'none') {
      if (spins++ > SPINS) sleep_us(100);
      if (Date.now() > deadline) throw new FreezeError(explainSleep(thread));
    } else if (!passOn(thread, status)) return undefined;
  }
}

/** Few: this thread goes before others (Urgency), the one that is to stop as well where both have one processor. */
const SPINS = 20;

/** Let a thread go on from a stop that was peeked at; false when it has ended. */
function passOn(thread: { readonly tid: number }, status: WaitStatus): boolean {
  if (status.kind === 'stopped') {
    ptrace.resume(thread.tid, status.event === 0 ? status.signal : 0);
    return true;
  }
  if (status.kind === 'none') throw new FreezeError(`task ${thread.tid}: ${describeStatus(status)}`);
  waitFor(thread.tid, false);
  return false;
}

/**
 * Detach. A task that is not stopped (nobody has told it to yet, a wait for it failed, or it runs a tape) is made to; one
 * that has ended has to be collected by us, its tracer, or its parent never hears of it. Answers false for one that does
 * not stop. `isRecent`: it may not have been cured since it stopped.
 */
function letGo(tid: number, isRecent: boolean): boolean {
  const deadline = Date.now() + LET_GO_TIMEOUT_MS;
  for (let isInterrupted = false; ; ) {
    const status = peekAt(tid);
    if (isRecent || isInterrupted) tryToCure(tid);
    // A signal that is just being delivered, and was not waited for yet, is delivered.
    const signal =
      status.kind === 'stopped' && status.event === 0 && !isSyscallStop(status) ? status.signal : 0;
    const result = attempt('ptrace', [PTRACE_DETACH, tid, 0, signal]);
    if (result >= 0) return true;
    if (result !== -ERRNO.ESRCH) throw new SyscallError('ptrace(PTRACE_DETACH)', -result, `task ${tid}`);
    if (status.kind === 'gone') return true;
    if (status.kind === 'exited' || status.kind === 'killed') waitFor(tid, false);
    else if (Date.now() > deadline) return false;
    else if (isInterrupted) sleep_us(100);
    else {
      attempt('ptrace', [PTRACE_INTERRUPT, tid, 0, 0]);
      isInterrupted = true;
    }
  }
}

/** A leader that has ended is not waited for before its threads are; so everybody is tried once more. */
function letAllGo(tids: Iterable<number>, areRecent = false): void {
  const barrier = new Barrier<number>();
  const left = new Set<number>();
  barrier.pass([...tids], (tid) => {
    if (!letGo(tid, areRecent)) left.add(tid);
  });
  barrier.pass([...left], (tid) => void letGo(tid, areRecent));
  barrier.throwFirst();
}

const LET_GO_TIMEOUT_MS = 2000;

function kill(pid: number, signal: number): void {
  try {
    syscall('kill', [pid, signal]);
  } catch (error) {
    if (!(error instanceof SyscallError) || error.errno !== ERRNO.ESRCH) throw error;
  }
}

/** False for one that has been killed meanwhile. */
function signalThread(thread: Thread, signal: number): boolean {
  const result = attempt('tgkill', [thread.process.pid, thread.tid, signal]);
  if (result < 0 && result !== -ERRNO.ESRCH) throw new SyscallError('tgkill', -result, nameOf(thread));
  return result === 0;
}

function swallowStop(thread: Thread): void {
  for (;;) {
    const status = waitFor(thread.tid);
    if (status.kind === 'stopped' && status.event === 0 && status.signal === SIGSTOP) return;
    if (!passOn(thread, status)) return;
  }
}

/** Wait out the end of a tracee; those of other parents stay for them. */
function reap(tid: number): void {
  for (;;) {
    const status = waitFor(tid);
    if (status.kind !== 'stopped') return;
    ptrace.resume(tid);
  }
}
