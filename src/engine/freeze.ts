import { ERRNO } from '../abi/errno.js';
import { PTRACE_CONT, PTRACE_DETACH, PTRACE_INTERRUPT } from '../abi/ptrace.js';
import { SyscallError } from '../kernel/errors.js';
import { insist } from '../kernel/insist.js';
import { KeptFiles } from '../kernel/procfs/read.js';
import * as ptrace from '../kernel/ptrace.js';
import { attempt, sleep_us, syscall } from '../kernel/syscall.js';
import { together } from '../kernel/together.js';
import { isSyscallStop, noteThreads, peekAt, peekAtAll, type WaitStatus, waitFor } from '../kernel/wait.js';
import { type FrozenThread, nameOf, type Process, type Thread } from '../resources/contract.js';
import { Barrier } from '../tape/barrier.js';
import { hasMetStop, SIGSTOP, takeStop } from '../tape/stops.js';
import { look, openFor, type Sighting, sightings } from './look.js';
import { frozenThread, shortenWait, tryToCure } from './stopped.js';
import { explainSleep, FreezeError, passOn, type Stops, stopAll, uninterruptible } from './stopping.js';
import { noteWaits } from './waits.js';

export { FreezeError };

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
        files?.readAhead();
        const processes = isFirst ? [] : look(root, stops.signals);
        files?.forget();
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

function living(process: Process): Thread[] {
  return process.state === 'zombie' ? [] : process.threads;
}

function sightingOf({ process, tid, status }: Thread): Sighting {
  return { pid: process.pid, tid, state: status.state };
}

function stateOf(thread: Thread, { states, waits }: Stops): FrozenThread {
  const state = states.get(thread.tid);
  if (state === undefined) throw new FreezeError(`${nameOf(thread)} was not stopped`);
  return frozenThread(thread, state, waits.get(thread.tid));
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
    const result = attempt('ptrace', [PTRACE_DETACH, tid, 0, beingDelivered(status)]);
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

/** A signal that is just being delivered, and was not waited for yet. */
function beingDelivered(status: WaitStatus | undefined): number {
  return status?.kind === 'stopped' && status.event === 0 && !isSyscallStop(status) ? status.signal : 0;
}

/** As `letGo`, of those who stand still and were cured. Answers all others. */
function letStoppedGo(tids: readonly number[]): number[] {
  const statuses = peekAtAll(tids);
  const signals = new Map(tids.map((tid, index) => [tid, beingDelivered(statuses[index])]));
  return [...together(tids, (tid) => ptrace.detach(tid, signals.get(tid) ?? 0)).keys()];
}

/** A leader that has ended is not waited for before its threads are; so everybody is tried once more. */
function letAllGo(tids: Iterable<number>, areRecent = false): void {
  const barrier = new Barrier<number>();
  const left = new Set<number>();
  const others = areRecent ? [...tids] : letStoppedGo([...tids]);
  barrier.pass(others, (tid) => {
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
