import * as C from '../../abi/process.js';
import { SIGCHLD } from '../../abi/signal.js';
import { iteratePages } from '../../image/index.js';
import type { ImageReader } from '../../image/reader.js';
import { readLimits } from '../../kernel/procfs/limits.js';
import type { file_entry, RestoreTask, StemMaps, Taker } from '../../resources/contract.js';
import { helperPids, type StemHolder, StemTaker } from '../../resources/description/index.js';
import { attachAll, completeTable, restoreFs, restoreTable } from '../../resources/file/index.js';
import { type Deferred, deferred, Tape } from '../../tape/tape.js';
import { RestoreError } from '../errors.js';
import { fileKinds, memory, network, networkLock, taskStates } from '../registry.js';
import { arrangeBirths, type Birth, type Family, leadsSession, type Person } from './births.js';
import { type ClockShift, clockShift } from './clock.js';
import { clone } from './clone.js';
import { type RestoreProcess, readProcesses } from './images.js';
import { chooseWorkspace, type RestoreWorkspace } from './workspace.js';
import { beforeDeath } from './zombie.js';

/**
 * The whole restore as tapes, before any process exists. `stasis plan` prints exactly these; perform.ts plays them,
 * one field after the other, each a barrier for the whole tree.
 */
export interface RestorePlan {
  readonly processes: readonly RestoreProcess[];
  readonly family: Family<RestoreProcess>;
  readonly workspace: RestoreWorkspace;
  readonly holder: StemHolder;
  /** Known only when it has been started. */
  readonly holderPid: Deferred;
  readonly stem: StemMaps;
  /** Where the clocks of the tree would otherwise go back. */
  readonly shift: ClockShift | undefined;
  /** Creators before those they create: session, memory, children. */
  readonly births: ReadonlyMap<Person<RestoreProcess>, Tape>;
  /** Groups, what of memory had to wait for the children, directories and umask. */
  readonly finish: ReadonlyMap<RestoreProcess, Tape>;
  /** Descriptors and threads. */
  readonly tables: ReadonlyMap<RestoreProcess, Tape>;
  /** Descriptors that had to wait for others and for threads; seldom any. */
  readonly additions: ReadonlyMap<RestoreProcess, Tape>;
  /** Stand-ins are collected by their parents. */
  readonly collect: ReadonlyMap<RestoreProcess, Tape>;
  /** Everything else, one tape a thread. */
  readonly states: readonly ThreadPlan[];
}

export interface ThreadPlan {
  readonly task: RestoreTask;
  readonly process: RestoreProcess;
  readonly index: number;
  readonly tid: number;
  readonly tape: Tape;
}

/**
 * `holder` is the caller's, who lets it go of the descriptors it was given when the plan was played, or will not be.
 * Throws an error of a class of ours whatever the image says: it may come from anywhere.
 */
export function planRestore(reader: ImageReader, holder: StemHolder): RestorePlan {
  try {
    return makePlan(reader, holder);
  } catch (error) {
    throw asRestoreError(error, reader);
  }
}

/** What has no class of ours. */
export function asRestoreError(error: unknown, { directory }: ImageReader): unknown {
  if (!isNondescript(error)) return error;
  const message = `${directory} cannot be restored: ${error.message}`;
  return new RestoreError(message, 'ERESTORE', { cause: error });
}

/** What JavaScript, Node.js, and checks without a class of their own throw. */
function isNondescript(error: unknown): error is Error {
  if (error instanceof TypeError || error instanceof RangeError || error instanceof SyntaxError) return true;
  return error instanceof Error && error.constructor === Error;
}

function makePlan(reader: ImageReader, holder: StemHolder): RestorePlan {
  const processes = readProcesses(reader);
  const groups = fileKinds.flatMap(({ session }) => session?.groups?.(holder) ?? []);
  const absent = [
    ...helperPids(reader).map((pid) => ({ pid })),
    ...groups.map(({ pgid, sid }) => ({ pid: pgid, sid })),
  ];
  const family = arrangeBirths(processes, absent);
  const workspace = chooseWorkspace(processes, Math.max(0, ...processes.map(runsOf)));
  const holderPid = deferred('holder');
  const living = processes.filter(({ isZombie }) => !isZombie);
  const files = reader.readOptional('files') ?? [];
  memory.hold(living, holder);
  if (network.isOwn(reader)) networkLock.release(holder);
  holder.openAll(fileKinds, files);
  memory.holdMapped(living, holder);
  holder.turnToLast();
  memory.seal(living, holder);
  holder.watchAll(fileKinds, files);
  const stem = memory.stemMaps();
  const plan = new Planner(
    workspace,
    holder,
    holderPid,
    stem,
    new Map(files.map((entry) => [entry.id, entry])),
  );
  return {
    processes,
    family,
    workspace,
    holder,
    holderPid,
    stem,
    shift: clockShift(reader, family.root.pid),
    births: new Map(
      family.persons.map((person) => [person, plan.birth(person, originOf(person, family) ?? stem)]),
    ),
    finish: new Map(processes.map((process) => [process, plan.finish(process, family, living)])),
    tables: new Map(living.map((process) => [process, plan.table(process, living)])),
    additions: new Map(
      living
        .filter((process) => plan.isWaiting(process, living))
        .map((process) => [process, plan.addition(process)]),
    ),
    collect: collectStandIns(family),
    states: living.flatMap((process) => plan.states(process)),
  };
}

function runsOf(process: RestoreProcess): number {
  if (process.mm === undefined) return 0;
  const { reader, pid } = process;
  // Only an increment can have more runs than its pagemap says: those of its parents.
  if (reader.parent() === undefined) return reader.pagemap(pid)?.entries.length ?? 0;
  let runs = 0;
  for (const _ of iteratePages(reader, pid)) runs++;
  return runs;
}

/** Stand-ins keep the memory of whoever forked them. Undefined for the root. */
function originOf(
  person: Person<RestoreProcess>,
  family: Family<RestoreProcess>,
): RestoreProcess | undefined {
  const creator = family.persons.find(({ before, after }) =>
    [...before, ...after].some(({ child }) => child === person),
  );
  if (creator === undefined) return undefined;
  return creator.image !== undefined && !creator.image.isZombie ? creator.image : originOf(creator, family);
}

const THREAD_FLAGS =
  C.CLONE_VM |
  C.CLONE_FS |
  C.CLONE_FILES |
  C.CLONE_SIGHAND |
  C.CLONE_THREAD |
  C.CLONE_SYSVSEM |
  C.CLONE_PTRACE;

class Planner {
  readonly #workspace: RestoreWorkspace;
  readonly #holder: StemHolder;
  readonly #holderPid: Deferred;
  readonly #stem: StemMaps;
  readonly #files: ReadonlyMap<number, file_entry>;

  constructor(
    workspace: RestoreWorkspace,
    holder: StemHolder,
    holderPid: Deferred,
    stem: StemMaps,
    files: ReadonlyMap<number, file_entry>,
  ) {
    this.#workspace = workspace;
    this.#holder = holder;
    this.#holderPid = holderPid;
    this.#stem = stem;
    this.#files = files;
  }

  /** `origin` is whose memory it is born with. */
  birth(person: Person<RestoreProcess>, origin: RestoreProcess | StemMaps): Tape {
    const { image } = person;
    const tape = new Tape(image === undefined ? `birth of stand-in ${person.pid}` : `birth of ${image.name}`);
    if (origin === this.#stem) raiseDescriptorLimit(tape);
    if (image !== undefined && !image.isZombie) {
      tape.about('private memory');
      this.#taking(tape, (taker) => memory.load(image, tape, taker, this.#workspace, origin));
    }
    for (const birth of person.before) this.#fork(tape, person, birth);
    tape.about('session and group');
    if (leadsSession(person)) {
      tape.call('setsid', []);
      if (image !== undefined && !image.isZombie) this.#inSession(image, tape, 'begin');
    } else if (person.pgid === person.pid) tape.call('setpgid', [0, 0]);
    for (const birth of person.after) this.#fork(tape, person, birth);
    return tape;
  }

  #fork(tape: Tape, creator: Person<RestoreProcess>, birth: Birth<RestoreProcess>): void {
    const { child, sibling } = birth;
    const mine = creator.image?.ids;
    const theirs = child.image?.ids;
    let flags = C.CLONE_PTRACE | (sibling ? C.CLONE_PARENT : 0);
    if (mine !== undefined && theirs !== undefined) {
      if (mine.filesId === theirs.filesId) flags |= C.CLONE_FILES;
      if (mine.fsId === theirs.fsId) flags |= C.CLONE_FS;
    }
    tape.about(`child ${child.image?.name ?? `${child.pid} (stand-in)`}`);
    clone(tape, child.pid, flags, sibling ? 0 : SIGCHLD);
  }

  finish(process: RestoreProcess, family: Family<RestoreProcess>, living: readonly RestoreProcess[]): Tape {
    const tape = new Tape(`group, memory and directories of ${process.name}`);
    const inherited = process.pgid === family.root.pgid && family.root.pgid !== family.root.pid;
    tape.about('group');
    if (process.pgid !== process.pid && !inherited) tape.call('setpgid', [0, process.pgid]);
    if (process.isZombie) {
      beforeDeath(tape, process.core.tc?.exitCode ?? 0);
      return tape;
    }
    this.#inSession(process, tape, 'finish');
    tape.about('shared and special memory');
    this.#taking(tape, (taker) => memory.finish(process, tape, taker, this.#workspace));
    // Before the tables: those who share a table must not take anything while its owner fills it.
    const { ids, fs } = process;
    const ownsFs = living.find((other) => other.ids?.fsId === ids?.fsId) === process;
    if (ownsFs && fs !== undefined) this.#taking(tape, (taker) => restoreFs(fs, tape, taker));
    return tape;
  }

  table(process: RestoreProcess, living: readonly RestoreProcess[]): Tape {
    const tape = new Tape(`descriptors and threads of ${process.name}`);
    const { waiting } = this.#holder;
    if (ownsTable(process, living)) {
      const taker = new StemTaker(tape, this.#holder, this.#holderPid);
      restoreTable(process.descriptors, waiting, tape, taker);
      attachAll(fileKinds, process, this.#files, tape, this.#holder, (id) => !waiting.has(id));
    }
    for (const { tid } of process.threads.slice(1)) {
      tape.about(`thread ${tid}`);
      clone(tape, tid, THREAD_FLAGS, 0);
    }
    return tape;
  }

  isWaiting(process: RestoreProcess, living: readonly RestoreProcess[]): boolean {
    const { waiting } = this.#holder;
    return ownsTable(process, living) && process.descriptors.some(({ id }) => waiting.has(id));
  }

  addition(process: RestoreProcess): Tape {
    const tape = new Tape(`descriptors of ${process.name} that had to wait`);
    const { waiting } = this.#holder;
    completeTable(process.descriptors, waiting, tape, new StemTaker(tape, this.#holder, this.#holderPid));
    attachAll(fileKinds, process, this.#files, tape, this.#holder, (id) => waiting.has(id));
    return tape;
  }

  states(process: RestoreProcess): ThreadPlan[] {
    return process.threads.map(({ tid, core }, index) => {
      const isLeader = index === 0;
      const tape = new Tape(`state of ${process.name}${isLeader ? '' : ` thread ${tid}`}`);
      const { pid, reader, name } = process;
      const task: RestoreTask = { pid, tid, isLeader, core, leaderCore: process.core, reader, name };
      for (const state of taskStates) {
        tape.about(state.name);
        if (state.scope === 'thread' || isLeader) state.restore?.(task, tape);
      }
      if (isLeader) memory.last(process, tape);
      return { task, process, index, tid, tape };
    });
  }

  #inSession(process: RestoreProcess, tape: Tape, step: 'begin' | 'finish'): void {
    for (const { session } of fileKinds)
      if (session !== undefined)
        this.#taking(tape, (taker) => session[step](process, tape, taker, this.#holder));
  }

  #taking(tape: Tape, entries: (taker: Taker) => void): void {
    const taker = new StemTaker(tape, this.#holder, this.#holderPid);
    entries(taker);
    taker.done();
  }
}

/** One process restores a table that several share: the first in the tree. */
function ownsTable({ ids }: RestoreProcess, living: readonly RestoreProcess[]): boolean {
  return living.find((other) => other.ids?.filesId === ids?.filesId)?.ids === ids;
}

/** The stems need numbers above those of the program for what they take; its own limit comes last. */
function raiseDescriptorLimit(tape: Tape): void {
  const hard = readLimits(process.pid)[C.RLIMIT_NOFILE]?.max ?? 1024n;
  const limit = new Uint8Array(16);
  const view = new DataView(limit.buffer);
  view.setBigUint64(0, hard, true);
  view.setBigUint64(8, hard, true);
  tape.about('descriptor limit');
  tape.call('prlimit64', [0, C.RLIMIT_NOFILE, tape.space(limit), 0]);
}

const __WALL = 0x4000_0000;

function collectStandIns(family: Family<RestoreProcess>): Map<RestoreProcess, Tape> {
  const tapes = new Map<RestoreProcess, Tape>();
  for (const person of family.persons) {
    const parent = person.parent?.image;
    if (person.image !== undefined || parent === undefined) continue;
    const tape = tapes.get(parent) ?? new Tape(`stand-ins of ${parent.name}`);
    tape.call('wait4', [person.pid, 0, __WALL, 0], person.pid);
    tapes.set(parent, tape);
  }
  return tapes;
}
