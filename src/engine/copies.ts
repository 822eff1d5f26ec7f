import { ERRNO } from '../abi/errno.js';
import {
  __WALL,
  CLONE_PARENT_SETTID,
  CLONE_PTRACE,
  CLONE_VFORK,
  CLONE_VM,
  P_PID,
  PR_SET_CHILD_SUBREAPER,
  WEXITED,
} from '../abi/process.js';
import { PTRACE_O_EXITKILL } from '../abi/ptrace.js';
import { SIGCHLD, SIGKILL } from '../abi/signal.js';
import { SyscallError } from '../kernel/errors.js';
import { insist } from '../kernel/insist.js';
import { unlessVanished } from '../kernel/procfs/error.js';
import { readStat } from '../kernel/procfs/stat.js';
import * as ptrace from '../kernel/ptrace.js';
import { readRemote } from '../kernel/remote.js';
import { attempt } from '../kernel/syscall.js';
import { isEventStop, type WaitStatus, waitFor, waitForAny } from '../kernel/wait.js';
import type { Process } from '../resources/contract.js';
import { cloneArguments } from '../tape/clone.js';
import { type Actor, atEnd, finish, type Play, play, start } from '../tape/play.js';
import { type BranchResult, type Played, type Space, Tape } from '../tape/tape.js';

/**
 * Copies of processes, for a dump that leaves them running: a process is forked on its own tape, and its memory is read
 * out of the fork when it has long been let go. What a fork costs is all that a pause has to last for private memory.
 *
 * A direct child would leave the program a zombie to wait for. So a middle task (CLONE_VM | CLONE_VFORK: the program
 * sleeps until it is gone) makes the copy and ends, and is reaped on the same tape; the copy is adopted by init. Both are
 * born traced (CLONE_PTRACE), so the copy stands still before its first instruction. Without us both exit.
 */
interface Request {
  readonly process: Process;
  /** Where the kernel writes the middle task's id before it runs. */
  readonly middle: Space;
  readonly copy: BranchResult;
}

/** Tapes that run, and what has been met and is not dealt with yet. */
interface Round {
  readonly running: Map<number, Play>;
  readonly middles: Set<number>;
  met: { readonly tid: number; readonly status: WaitStatus } | undefined;
}

/** Calls that are to be made on the tape of a process once it has a child, whatever becomes of us. */
export const CALLS_AFTER_BIRTH = ['exit_group', 'waitid', 'prctl'] as const;

export class Copies implements Disposable {
  readonly #requests = new Map<Process, Request>();
  readonly #pids = new Map<Process, number>();
  /** Tasks born so far that are nobody's middle task, until the tapes have told whose they are. */
  readonly #born = new Set<number>();

  /**
   * Copy every process whose leader is given. A subreaper among them must not be one at that moment, for it would be
   * the copies' next parent; its tail makes it one again if we die. The init of a pid namespace cannot help it.
   */
  make(leaders: ReadonlyMap<Process, Actor>): void {
    const all = [...leaders].map(([process, actor]) => ({ process, actor }));
    if (all.some(({ process }) => process.insidePid === 1)) return;
    const reapers = all.filter(({ process }) => process.leader.core.tc?.childSubreaper === true);
    setReaping(reapers, 0);
    try {
      this.#play(
        all.map(({ process, actor }) => {
          const tape = new Tape(`copy of ${actor.name}`);
          this.#request(process, tape);
          if (process.leader.core.tc?.childSubreaper === true) reapAgain(tape);
          return { actor, tape };
        }),
      );
    } finally {
      setReaping(reapers, 1);
    }
  }

  /** Append to the tape of a process's leader what makes a copy of it. */
  #request(process: Process, tape: Tape): void {
    const middle = tape.space(16);
    const middleFlags = CLONE_VM | CLONE_VFORK | CLONE_PTRACE | CLONE_PARENT_SETTID;
    const middleArgs = cloneArguments(tape, middleFlags, { parentTid: middle });
    const copyArgs = cloneArguments(tape, CLONE_PTRACE, { exitSignal: SIGCHLD });
    let copy: BranchResult | undefined;
    const made = tape.clone(
      middleArgs,
      (task) => {
        // Not even for a moment does the copy hold a file of the program open.
        task.call('close_range', [0, 0xffff_ffff, 0], 'any');
        copy = task.clone(copyArgs, () => undefined, 'any');
      },
      'any',
    );
    // By P_PID, for which a clone that failed (a negative number) is no child; wait4(2) would take it for a group.
    tape.call('waitid', [P_PID, made, 0, WEXITED | __WALL, 0], 'any');
    if (copy !== undefined) this.#requests.set(process, { process, middle, copy });
  }

  /** Whatever fails, nobody is left on the way: a middle task that stands still would keep its process from going home. */
  #play(plays: readonly Play[]): void {
    const round: Round = { running: new Map(), middles: new Set(), met: undefined };
    const begun: Play[] = [];
    try {
      for (const play of plays) {
        start([play]);
        round.running.set(play.actor.tid, play);
        begun.push(play);
      }
      this.#await(round);
    } catch (error) {
      try {
        this.#await(round);
        this.#settle(begun, finish(begun));
      } catch {
        // The failure that led here is the one to tell of.
      }
      throw error;
    }
    insist(() => this.#settle(plays, finish(plays)));
  }

  /** Until all tapes have ended. Can be taken up again where it failed. */
  #await(round: Round): void {
    const { running, middles } = round;
    while (running.size > 0) {
      round.met ??= waitForAny();
      const { tid, status } = round.met;
      const play = running.get(tid);
      if (play !== undefined) {
        if (status.kind !== 'stopped') running.delete(tid);
        if (atEnd(play.actor, status, play.tape.title)) running.delete(tid);
      } else if (!middles.has(tid)) this.#meet(tid, status, running, middles);
      round.met = undefined;
    }
  }

  /** The task that has this process's memory as it was; undefined where none could be made. */
  pidOf(process: Process): number | undefined {
    return this.#pids.get(process);
  }

  /** A birth (or the end of a middle task that was not known as one). */
  #meet(tid: number, status: WaitStatus, running: ReadonlyMap<number, Play>, middles: Set<number>): void {
    if (!isEventStop(status)) return;
    if (this.#isMiddle(tid, running)) {
      // In this order: where going on fails, it is met again.
      unlessEnded(() => ptrace.resume(tid));
      middles.add(tid);
      return;
    }
    this.#keep(tid);
  }

  #keep(tid: number): void {
    this.#born.add(tid);
    unlessEnded(() => ptrace.setOptions(tid, PTRACE_O_EXITKILL));
  }

  /** Its parent's tape knows: the kernel wrote its id there before it was woken. */
  #isMiddle(tid: number, running: ReadonlyMap<number, Play>): boolean {
    const parent = unlessVanished(() => readStat(tid))?.ppid ?? 0;
    for (const [process, { middle }] of this.#requests) {
      if (process.pid !== parent) continue;
      const play = running.get(process.pid);
      if (play === undefined) return false;
      const { tape, actor } = play;
      const at = actor.slice.address + BigInt(tape.size - tape.dataLength + middle.offset);
      const id = readRemote(process.pid, at, 4);
      return new DataView(id.buffer, id.byteOffset).getInt32(0, true) === tid;
    }
    return false;
  }

  /** Which copy is whose. The births of some are told of only now, when their tapes have ended. */
  #settle(plays: readonly Play[], played: readonly Played[]): void {
    for (const { process, copy } of this.#requests.values()) {
      const index = plays.findIndex(({ actor }) => actor.tid === process.pid);
      const pid = Number(played[index]?.branchResult(copy) ?? -1n);
      if (pid <= 0) continue;
      if (!this.#born.has(pid)) {
        if (!isEventStop(waitFor(pid))) continue;
        this.#keep(pid);
      }
      this.#pids.set(process, pid);
    }
  }

  #kill(pid: number): void {
    attempt('kill', [pid, SIGKILL]);
    while (waitFor(pid).kind === 'stopped') ptrace.resume(pid);
    this.#born.delete(pid);
  }

  [Symbol.dispose](): void {
    insist(() => {
      for (const pid of [...this.#born]) this.#kill(pid);
    });
    this.#pids.clear();
  }
}

/** Somebody else has killed it since its birth: that shows when it is read, and must keep nobody from going on. */
function unlessEnded(action: () => void): void {
  try {
    action();
  } catch (error) {
    if (!(error instanceof SyscallError) || error.errno !== ERRNO.ESRCH) throw error;
  }
}

function setReaping(reapers: readonly { actor: Actor }[], on: 0 | 1): void {
  if (reapers.length === 0) return;
  play(
    reapers.map(({ actor }) => {
      const tape = new Tape(`${actor.name} as a reaper`);
      tape.call('prctl', [PR_SET_CHILD_SUBREAPER, on, 0, 0, 0], 0);
      reapAgain(tape);
      return { actor, tape };
    }),
  );
}

function reapAgain(tape: Tape): void {
  tape.cleanup('prctl', [PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0]);
}
