import { ERRNO } from '../../abi/errno.js';
import { PTRACE_CONT } from '../../abi/ptrace.js';
import { SIGKILL, SIGURG } from '../../abi/signal.js';
import { SYSCALL_X86_64 } from '../../abi/syscalls.js';
import { SyscallError } from '../../kernel/errors.js';
import { insistOnAll } from '../../kernel/insist.js';
import { readComm } from '../../kernel/procfs/cmdline.js';
import { unlessVanished } from '../../kernel/procfs/error.js';
import * as ptrace from '../../kernel/ptrace.js';
import { NO_SYSCALL } from '../../kernel/registers.js';
import { attempt, syscall } from '../../kernel/syscall.js';
import { describeStatus, isEventStop, noteThreads, waitFor, waitForLeader } from '../../kernel/wait.js';
import { LOOP_SYSCALL } from '../../machine/x86_64.js';
import type { RestoreTask } from '../../resources/contract.js';
import { type LoadedRegisters, loadRegisters } from '../../resources/process/index.js';
import { maskFor } from '../../tape/borrow.js';
import { type Actor, LostTaskError, type Play, play, TapeError } from '../../tape/play.js';
import { endStem, sliceOf, startStem } from '../../tape/stem.js';
import { SIGSTOP, takeStop } from '../../tape/stops.js';
import type { Tape } from '../../tape/tape.js';
import type { PhaseClock } from '../clock.js';
import { releaseDuty } from '../duties.js';
import { RestoreError } from '../errors.js';
import { Guardian, startSpare } from '../guardian.js';
import type { RestoreRequest } from '../options.js';
import { taskStates } from '../registry.js';
import type { Person } from './births.js';
import { awaitBurials } from './burials.js';
import { type ClockShift, rootTape, shiftTape } from './clock.js';
import { finalSignalOf } from './final-signal.js';
import { isStopped, stopChildren, stopSignalOf } from './group-stop.js';
import type { RestoreProcess } from './images.js';
import type { RestorePlan, ThreadPlan } from './plan.js';
import { setRegisters, unmapWorkspaces } from './registers.js';
import { sliceOffset, sliceSize } from './workspace.js';

/** Plays a plan. Until `release`, the death of any part, or of this process, is the end of the whole tree. */
export class Performance implements Disposable {
  readonly #plan: RestorePlan;
  readonly #request: RestoreRequest;
  readonly #actors = new Map<number, Actor>();
  readonly #started = new Set<number>();
  /** Who stays stopped when it is let go of. */
  #stopped: ReadonlySet<RestoreProcess> = new Set();
  /** By task; what every thread is to be let go with. */
  readonly #registers = new Map<RestoreTask, LoadedRegisters>();
  #holder: Actor | undefined;
  #guardian: Guardian | undefined;

  constructor(plan: RestorePlan, request: RestoreRequest) {
    this.#plan = plan;
    this.#request = request;
  }

  /** All phases up to the last barrier: the tree is complete and stands still. `meanwhile` is done once, while memory is read. */
  build(clock: PhaseClock, meanwhile: () => void): void {
    clock.start('holder');
    for (const acts of this.#plan.holder.acts) acts.begin?.();
    if (!this.#isAlone) this.#startGuardian();
    this.#startHolder();
    clock.start('births');
    awaitBurials(this.#plan.family.persons.map(({ pid }) => pid));
    this.#births(meanwhile);
    if (this.#holder !== undefined) play([{ actor: this.#holder, tape: this.#plan.holder.late }]);
    clock.start('memory');
    // Before they are born: a leader that is killed then is told of only after its threads.
    for (const { process, index } of this.#plan.states) if (index > 0) noteThreads(process.pid, true);
    this.#playAll(this.#plan.finish);
    clock.start('descriptors');
    this.#endTheDead();
    this.#playAll(this.#plan.tables);
    this.#adoptThreads();
    if (this.#plan.holder.waiting.size > 0) {
      if (this.#holder !== undefined) play([{ actor: this.#holder, tape: this.#plan.holder.latest }]);
      this.#playAll(this.#plan.additions);
    }
    clock.start('states');
    this.#stopped = stopChildren(this.#plan.states);
    this.#restoreStates();
    this.#settle();
    if (this.#holder !== undefined) play([{ actor: this.#holder, tape: this.#plan.holder.last }]);
    clock.start('registers');
    const { states, workspace } = this.#plan;
    const leaders = states.filter(({ index }) => index === 0);
    unmapWorkspaces(
      leaders.map(({ tid }) => this.#actor(tid)),
      workspace,
    );
    for (const { task } of states) setRegisters(task, this.#registers.get(task));
  }

  /** The point of no return: everybody goes on where the image says. */
  release(): void {
    const { processes } = this.#plan;
    const pids = processes.filter(({ isZombie }) => !isZombie).map(({ pid }) => pid);
    this.#guardian?.know(pids);
    this.#guardian?.take(releaseDuty(pids));
    for (const acts of this.#plan.holder.acts) acts.resume?.();
    this.#endHolder();
    for (const actor of this.#actors.values()) ptrace.setOptions(actor.tid, 0);
    for (const process of processes)
      if (this.#stops(process) && !this.#stopped.has(process))
        syscall('kill', [process.pid, stopSignalOf(process)]);
    for (const { inside, tid } of this.#actors.values())
      if (takeStop(tid)) syscall('tgkill', [inside.pid, tid, SIGSTOP]);
    for (const actor of this.#actors.values()) ptrace.detach(actor.tid);
    this.#forget();
  }

  #forget(): void {
    for (const { pid } of this.#plan.processes) noteThreads(pid, false);
    this.#started.clear();
    this.#actors.clear();
    this.#endGuardian();
  }

  #endGuardian(): void {
    this.#guardian?.[Symbol.dispose]();
    this.#guardian = undefined;
  }

  get rootPid(): number {
    return this.#plan.family.root.pid;
  }

  #stops(process: RestoreProcess): boolean {
    return !process.isZombie && (this.#request.leaveStopped || isStopped(process));
  }

  #actor(tid: number): Actor {
    const actor = this.#actors.get(tid);
    if (actor === undefined) throw new Error(`no actor for task ${tid}`);
    return actor;
  }

  #startHolder(): void {
    const { holder, holderPid } = this.#plan;
    const actor = startSpare(this.#taken(), 'the holder', HOLDER_WORKSPACE, HOLDER_SLICE);
    this.#started.add(actor.tid);
    prepare(actor);
    this.#holder = actor;
    holderPid.value = actor.tid;
    holder.controller.value = process.pid;
    try {
      play([{ actor, tape: holder.openings }], () => {
        for (const tape of this.#plan.tables.values()) tape.prepare('exit');
      });
    } finally {
      holder.closeBrought();
    }
  }

  /** Ids that the tree needs, which no helper of ours may have. */
  #taken(): Set<number> {
    const { processes, family } = this.#plan;
    const taken = new Set(processes.flatMap(({ threads }) => threads.map(({ tid }) => tid)));
    for (const { pid } of family.persons) taken.add(pid);
    return taken;
  }

  #endHolder(): void {
    if (this.#holder === undefined) return;
    play([{ actor: this.#holder, tape: this.#plan.holder.resume }]);
    this.#end(this.#holder.tid);
    this.#holder = undefined;
  }

  /** Level by level: all tapes of a level play at once, and create the next. */
  #births(meanwhile: () => void): void {
    const { family, births, stem } = this.#plan;
    this.#startRoot(family.root);
    stem.learn(family.root.pid);
    let level = [family.root];
    while (level.length > 0) {
      const plays = level.map((person) => ({
        actor: this.#actor(person.pid),
        tape: births.get(person) as Tape,
      }));
      if (level[0] === family.root) this.#playMeanwhile(plays, this.#actor(family.root.pid), meanwhile);
      else play(plays);
      level = level.flatMap((person) => [...person.before, ...person.after].map(({ child }) => child));
      for (const child of level) this.#adopt(child.pid, child.pid, 0, nameOfPerson(child));
    }
  }

  /** The root reads its memory: time enough for what has to be done some time. */
  #playMeanwhile(plays: readonly Play[], root: Actor, meanwhile: () => void): void {
    const { states, finish } = this.#plan;
    const host = ptrace.getXstate(root.tid);
    play(plays, () => {
      if (this.#isAlone) this.#startGuardian();
      for (const tape of finish.values()) tape.prepare('exit');
      for (const { tape, task } of states) {
        tape.prepare('exit');
        this.#registers.set(task, loadRegisters(task, host));
      }
      meanwhile();
    });
  }

  /** While others are born, nobody may be started who could get their ids. */
  get #isAlone(): boolean {
    return this.#plan.family.persons.length === 1;
  }

  #startGuardian(): void {
    this.#guardian = Guardian.start(this.#taken());
  }

  #startRoot(root: Person<RestoreProcess>): void {
    const { workspace, shift } = this.#plan;
    const name = nameOfPerson(root);
    try {
      if (shift !== undefined) {
        this.#startShiftedRoot(root, shift);
        return;
      }
      const actor = startStem({
        workspace,
        sliceSize: workspace.leaderSlice,
        pid: root.pid,
        sibling: this.#request.sibling,
        name,
      });
      this.#started.add(actor.tid);
      prepare(actor);
      this.#actors.set(root.pid, actor);
    } catch (error) {
      throw explainTaken(error, root.pid);
    }
  }

  /** The root is forked by a stem that has left our time namespace for its children. */
  #startShiftedRoot(root: Person<RestoreProcess>, shift: ClockShift): void {
    const { workspace } = this.#plan;
    const clock = startSpare(
      this.#taken(),
      'the clock',
      workspace,
      workspace.leaderSlice,
      this.#request.sibling,
    );
    this.#started.add(clock.tid);
    prepare(clock);
    play([{ actor: clock, tape: shiftTape(shift) }]);
    play([{ actor: clock, tape: rootTape(root.pid) }]);
    this.#actors.set(root.pid, { ...clock, tid: root.pid, inside: { pid: root.pid, tid: root.pid } });
    this.#adopt(root.pid, root.pid, 0, nameOfPerson(root));
    this.#end(clock.tid);
  }

  /** A task that a tape has just cloned: wait for its first stop. */
  #adopt(pid: number, tid: number, index: number, name: string): void {
    this.#started.add(tid);
    const status = waitFor(tid);
    if (!isEventStop(status)) throw new LostTaskError(`${name}: ${describeStatus(status)}`);
    const { workspace } = this.#plan;
    const root = this.#actor(this.rootPid);
    this.#actors.set(tid, {
      ...root,
      tid,
      inside: { pid, tid },
      name,
      slice: sliceOf(workspace, sliceOffset(workspace, index), sliceSize(workspace, index)),
    });
  }

  #adoptThreads(): void {
    for (const { process, index, tid } of this.#plan.states)
      if (index > 0) this.#adopt(process.pid, tid, index, `${process.name} thread ${tid}`);
  }

  #finalActor({ task, tid }: ThreadPlan): Actor {
    const actor = this.#actor(tid);
    const stopSignal = finalSignalOf(task);
    if (stopSignal === actor.stopSignal) return actor;
    ptrace.setSignalMask(tid, maskFor(stopSignal));
    return { ...actor, stopSignal };
  }

  #restoreStates(): void {
    const { states } = this.#plan;
    try {
      play(states.map((plan) => ({ actor: this.#finalActor(plan), tape: plan.tape })));
    } catch (error) {
      throw error instanceof TapeError ? explainState(error, states) : error;
    }
  }

  /** What only procfs takes, from outside. */
  #settle(): void {
    for (const { task, tid } of this.#plan.states)
      for (const state of taskStates)
        if (state.scope === 'thread' || task.isLeader) state.settle?.(task, tid);
  }

  #playAll(tapes: ReadonlyMap<RestoreProcess, Tape>): void {
    const plays: Play[] = [];
    for (const [process, tape] of tapes) plays.push({ actor: this.#actor(process.pid), tape });
    if (plays.length > 0) play(plays);
  }

  /** Zombies die as the image says, stand-ins because their time is over; their parents collect the latter. */
  #endTheDead(): void {
    const { family, processes, collect } = this.#plan;
    for (const { pid, image } of family.persons) if (image === undefined) this.#die(pid, 0);
    for (const { pid, isZombie, core } of processes) if (isZombie) this.#die(pid, core.tc?.exitCode ?? 0);
    this.#playAll(collect);
  }

  /** `code` as wait(2) reports it: a signal in the low seven bits, or a status in the next byte. */
  #die(pid: number, code: number): void {
    const signal = code & 0x7f;
    const { base, slice } = this.#actor(pid);
    // SAFETY: the loop's `syscall` instruction with exit_group in the registers; nothing of it returns.
    const exit = { ...base, ip: slice.code + BigInt(LOOP_SYSCALL), orig_ax: NO_SYSCALL };
    ptrace.setRegisters(pid, {
      ...exit,
      ax: BigInt(SYSCALL_X86_64.exit_group),
      di: BigInt((code >> 8) & 0xff),
    });
    if (signal !== 0) dieBySignal(pid, signal);
    else ptrace.resume(pid);
    for (;;) {
      const status = waitFor(pid);
      if (status.kind !== 'stopped') break;
      ptrace.resume(pid, status.event === 0 ? status.signal : 0);
    }
    this.#actors.delete(pid);
  }

  #end(tid: number): void {
    endStem(tid);
    this.#started.delete(tid);
  }

  /** Ends whatever was started, if it was not released. */
  [Symbol.dispose](): void {
    const ends = this.#plan.holder.acts.splice(0).map((acts) => () => acts.end?.());
    insistOnAll([() => this.#endAll(), () => this.#forget(), ...ends]);
  }

  #endAll(): void {
    const leaders = new Set(this.#plan.family.persons.map(({ pid }) => pid));
    for (const tid of this.#started) attempt('kill', [tid, SIGKILL]);
    for (const tid of this.#started) takeStop(tid);
    for (const tid of this.#started) if (!leaders.has(tid)) waitOut(tid);
    for (const tid of this.#started) if (leaders.has(tid)) waitOut(tid);
  }
}

const HOLDER_WORKSPACE = { address: 0x1000_0000_0000n, size: 0x1000_0000n };
const HOLDER_SLICE = 0x0fff_0000;

/** Wait for the end of a task that was killed, and of threads of it that had not been adopted yet. */
function waitOut(tid: number): void {
  while (waitForLeader(tid).kind === 'stopped') attempt('ptrace', [PTRACE_CONT, tid, 0, 0]);
}

function nameOfPerson(person: Person<RestoreProcess>): string {
  return person.image?.name ?? `pid ${person.pid} (stand-in)`;
}

/** Nothing but the end of a tape stops a stem, and its children inherit that. */
function prepare(actor: Actor): void {
  ptrace.setSignalMask(actor.tid, maskFor(SIGURG));
}

function dieBySignal(pid: number, signal: number): void {
  ptrace.setSignalMask(pid, 0n);
  ptrace.resume(pid, signal);
}

/** What the resource that put the failed entry on the tape says of it. */
function explainState(error: TapeError, states: readonly ThreadPlan[]): Error {
  const plan = states.find(({ tape }) => tape === error.played.tape);
  if (plan === undefined) return error;
  for (const state of taskStates) {
    const why = state.explain?.(plan.task, plan.tape, error.index, plan.tid);
    if (why !== undefined) return new RestoreError(`${plan.task.name}: ${why}`, error.code, { cause: error });
  }
  return error;
}

function explainTaken(error: unknown, pid: number): unknown {
  if (!(error instanceof SyscallError) || error.errno !== ERRNO.EEXIST) return error;
  const comm = unlessVanished(() => readComm(pid)) ?? 'a task that is just ending';
  return new RestoreError(
    `pid ${pid} is taken by ${comm}; end it, or restore in a pid namespace of its own (unshare --pid --fork --mount-proc)`,
    'EEXIST',
    { cause: error },
  );
}
