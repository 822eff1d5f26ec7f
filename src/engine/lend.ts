import { closeSync, openSync, writeSync } from 'node:fs';
import { type Mapping, mappingAt, readMaps } from '../kernel/procfs/maps.js';
import { nameOf, type Process, type Refuse, type Thread } from '../resources/contract.js';
import { type Borrowed, borrowAs, giveBack, planBorrows } from '../tape/borrow.js';
import { chainRoom, type Lender, type Range } from '../tape/chain.js';
import { findGadgets, findSpin, type Gadgets } from '../tape/gadgets.js';
import { freeRange } from '../tape/gap.js';
import type { Actor } from '../tape/play.js';
import type { Tape } from '../tape/tape.js';
import { keyOf } from './ask.js';
import { fatalCall, isConfined, makes } from './confined.js';
import { CALLS_AFTER_BIRTH } from './copies.js';
import { UnsupportedError } from './errors.js';
import { FreezeError } from './freeze.js';
import type { Duty, Guardian } from './guardian.js';
import { healConfined, healStopped } from './heal.js';
import type { Likeness } from './likeness.js';

/**
 * Borrowing the threads of a frozen tree, but those for whom another answers: where their workspaces and chains go, which signal ends their tapes.
 */

/** Bytes of workspace a thread gets; a page of tape is about 45 calls. */
const WORKSPACE_SIZE = 64 * 1024;
const PAGE = 4096n;
const RED_ZONE = 128n;
/** SIGURG, SIGWINCH, SIGCHLD: ignored by default. Go's runtime takes SIGURG for granted at any time. */
const STOP_SIGNALS = [23, 28, 17];
const SIGSTOP = 19;

export class Loan implements Disposable {
  readonly actors: ReadonlyMap<Thread, Actor>;
  /** All, borrowed or not. */
  readonly threads: readonly Thread[];
  readonly likeness: Likeness | undefined;
  readonly #speakers = new Map<Thread, Thread>();
  #borrowed: Borrowed[];
  readonly #duties: Duty[] = [];
  readonly #guardian: Guardian;
  /** Who is taken home by the guardian. */
  readonly #helpless = new Set<Process>();

  constructor(processes: readonly Process[], guardian: Guardian, likeness: Likeness | undefined) {
    this.#guardian = guardian;
    this.likeness = likeness;
    const living = processes.filter(({ state }) => state !== 'zombie');
    this.threads = living.flatMap((process) => process.threads);
    for (const process of living)
      for (const [thread, speaker] of likeness?.speakers(process, keyOf) ?? [])
        this.#speakers.set(thread, speaker);
    const wanted = this.threads.filter((thread) => !this.#speakers.has(thread));
    const planned = living.map((process) => {
      const confined = process.threads.some(isConfined);
      const own = wanted.filter((thread) => thread.process === process);
      return { process, confined, threads: planBorrows(lendersOf(process, own, confined)) };
    });
    for (const each of planned) this.#provide(each.process, each.threads, each.confined);
    this.#borrowed = borrowAs(planned.flatMap((each) => each.threads));
    const actors = new Map<Thread, Actor>();
    wanted.forEach((thread, index) => {
      const borrowed = this.#borrowed[index];
      if (borrowed !== undefined) actors.set(thread, borrowed.actor);
    });
    this.actors = actors;
  }

  /** Who is asked for a thread: it itself, or one like it. */
  speakerOf(thread: Thread): Thread {
    return this.#speakers.get(thread) ?? thread;
  }

  actorOf(thread: Thread): Actor {
    const actor = this.actors.get(thread);
    if (actor === undefined) throw new Error(`${nameOf(thread)} is not borrowed`);
    return actor;
  }

  /** Throws when somebody was lost; everybody else has been given back then. */
  giveBack(): void {
    const borrowed = this.#borrowed;
    this.#borrowed = [];
    giveBack(borrowed);
    for (const duty of this.#duties.splice(0)) this.#guardian.drop(duty);
  }

  /** See to it that threads which cannot go home by themselves are taken there if we die. */
  #provide(process: Process, threads: readonly Borrowed[], confined: boolean): void {
    const isStopped = process.state === 'stopped';
    if (!isStopped && !confined) return;
    const duty = isStopped ? healStopped(threads, stopSignalOf(process)) : healConfined(threads, process.pid);
    this.#helpless.add(process);
    this.#duties.push(duty);
    this.#guardian.take(duty);
    if (!confined || this.#guardian.holds) return;
    throw new UnsupportedError([
      {
        task: nameOf(process),
        object: 'seccomp filters',
        reason:
          'they would end it if this process were killed now, and the guardian may not trace this process',
        help: 'do not run it under a debugger or strace',
      },
    ]);
  }

  /**
   * Of these, those that can make children on their tapes. If we die, the children have to end themselves, and their parents
   * to collect them. A child whose filters refuse it its end would go home as a second process of the program.
   */
  parents<T>(leaders: ReadonlyMap<Process, T>): Map<Process, T> {
    return new Map(
      [...leaders].filter(
        ([process]) => !this.#helpless.has(process) && makes(process.leader, CALLS_AFTER_BIRTH),
      ),
    );
  }

  /**
   * Before a tape is played: is it harmless under the thread's filters, should we die? One with a tail has something to
   * put back, and has to be played to its end.
   */
  vet(thread: Thread, tape: Tape): void {
    const isHelpless = this.#helpless.has(thread.process);
    if (tape.hasTail && (isHelpless || !makes(thread, tape.calls))) refuseToPlay(thread, tape);
    if (isHelpless) return;
    const call = fatalCall(thread, tape.calls);
    if (call !== undefined)
      throw new FreezeError(`${tape.title}: the seccomp filters would not survive ${call}`);
  }

  /** As `giveBack`, on the way back from a failure, which must not be hidden by another. */
  abandon(): void {
    try {
      this.giveBack();
    } catch {
      // Whoever was lost, or does not stop, needs nothing, or goes home by its chain when let go.
    }
  }

  [Symbol.dispose](): void {
    this.abandon();
  }
}

function refuseToPlay(thread: Thread, tape: Tape): never {
  throw new UnsupportedError([
    {
      task: nameOf(thread),
      object: tape.title,
      reason:
        'it would have to take something out and put it back, and could be kept from that by a stop or by its seccomp filters if this process were killed now',
      help: 'let it go on (SIGCONT) if it is stopped',
    },
  ]);
}

/** What has stopped a process; the freeze saw it. */
function stopSignalOf({ leader }: Process): number {
  return leader.core.tc?.stopSigno || SIGSTOP;
}

function lendersOf(process: Process, threads: readonly Thread[], confined: boolean): Lender[] {
  const maps = readMaps(process.pid);
  const gadgets = findGadgets(process.pid, maps);
  if (gadgets === undefined)
    throw new FreezeError(
      `Cannot make ${nameOf(process)} play tapes: no executable mapping of it holds a system call and a signal return`,
    );
  const size = WORKSPACE_SIZE * threads.length;
  const address = freeRange(maps, BigInt(size));
  if (address === undefined) throw new FreezeError(`${nameOf(process)} has no room for a workspace`);
  const spin = confined ? findSpin(process.pid, maps) : undefined;
  if (confined && spin === undefined)
    throw new FreezeError(
      `${nameOf(process)} is under seccomp filters, and has no code in which it could wait`,
    );
  const space: Space = {
    maps,
    gadgets,
    stack: maps.find(({ path }) => path === '[stack]'),
    range: { address, size },
    spin,
    // Those who are taken home by the guardian have workspaces of their own.
    host: confined || process.state === 'stopped' || threads.length === 1 ? undefined : process.pid,
    mayStop: stopSignalsOf(process),
  };
  return threads.map((thread, index) => lenderOf(thread, space, index));
}

/** What the threads of a process have in common. */
interface Space {
  readonly maps: readonly Mapping[];
  readonly gadgets: Gadgets;
  readonly stack: Mapping | undefined;
  /** All workspaces. */
  readonly range: Range;
  readonly spin: bigint | undefined;
  /** Who maps and unmaps them all. */
  readonly host: number | undefined;
  readonly mayStop: readonly number[];
}

function lenderOf(thread: Thread, space: Space, index: number): Lender {
  const { frozen, tid } = thread;
  const { gadgets, range, spin, host } = space;
  if (frozen === undefined) throw new Error(`${nameOf(thread)} is not frozen`);
  const part = host === undefined ? {} : host === tid ? { hosts: range } : { guestOf: host };
  return {
    tid,
    inside: { pid: thread.process.insidePid, tid: thread.insideTid },
    get name() {
      return nameOf(thread);
    },
    registers: frozen.registers,
    home: frozen.home,
    mask: frozen.mask,
    xstate: frozen.xstate,
    gadgets,
    workspace: { address: range.address + BigInt(WORKSPACE_SIZE * index), size: WORKSPACE_SIZE },
    chain: chainFor(thread, space, BigInt(chainRoom(frozen.xstate)), index),
    stopSignal: stopSignalFor(thread, space.mayStop),
    ...(spin === undefined ? {} : { spin }),
    ...part,
  };
}

/** A handler that runs on a chain's stack has this much of it, where there is enough. */
const HANDLER_ROOM = 16n * 1024n;

/**
 * Unused stack for a thread's chain. The main thread's is the low end of [stack], far under any use; an ordinary
 * pthread stack is used below its red zone (such a stack has its TCB, to which fs points, at its top); anybody else
 * gets a place of its own at the low end of [stack].
 */
function chainFor(thread: Thread, { maps, stack }: Space, room: bigint, index: number): bigint {
  const registers = thread.frozen?.registers;
  if (registers !== undefined && !thread.isLeader) {
    const { sp, fs_base } = registers;
    const own = mappingAt(maps, sp);
    const at = (sp - RED_ZONE - room) & ~63n;
    if (own?.perms.startsWith('rw') && fs_base >= sp && fs_base < own.end && at >= own.start) return at;
  }
  if (stack === undefined) throw new FreezeError(`${nameOf(thread)} has no [stack] mapping for its way back`);
  const used = thread.process.leader.frozen?.registers.sp ?? 0n;
  const end = used >= stack.start && used < stack.end ? used - PAGE : stack.end;
  const spacious = stack.start + HANDLER_ROOM + (room + HANDLER_ROOM) * BigInt(index);
  const tight = stack.start + room * BigInt(index);
  for (const at of [spacious, tight]) if (at + room <= end) return at;
  const below = (stack.start - (room + HANDLER_ROOM) * BigInt(index + 1)) & ~63n;
  if (growStack(thread.tid, below - HANDLER_ROOM)) return below;
  throw new FreezeError(`No unused stack was found in ${nameOf(thread)} for its way back`);
}

/**
 * Some program has used its stack down to the page it has grown to. It grows as if it was used further: a write through
 * /proc/PID/mem does that (mm/memory.c __access_remote_vm), which process_vm_writev(2) does not.
 */
function growStack(tid: number, address: bigint): boolean {
  let file: number | undefined;
  try {
    file = openSync(`/proc/${tid}/mem`, 'r+');
    // SAFETY: nothing is mapped there, or it would not have been free to grow into; what grows is zero.
    return writeSync(file, Buffer.alloc(8), 0, 8, Number(address)) === 8;
  } catch {
    // Something is mapped there, or RLIMIT_STACK is reached.
    return false;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

/** Before the freeze: what would keep a process from being borrowed. */
export function checkLoan(process: Process, refuse: Refuse): void {
  const maps = readMaps(process.pid);
  const task = nameOf(process);
  if (findGadgets(process.pid, maps) === undefined)
    refuse({
      task,
      object: 'code',
      reason:
        'no executable mapping holds a system call and a signal return, by which it could go on without us',
    });
  if (!maps.some((mapping) => mapping.path === '[stack]'))
    refuse({ task, object: 'stack', reason: 'it has no [stack] mapping, where its way back would be kept' });
}

const isIn = (mask: bigint) => (signal: number) => (mask & (1n << BigInt(signal - 1))) !== 0n;

/** Those that are not pending for the process; of these, the ones that nobody catches come first. */
function stopSignalsOf({ leader }: Process): readonly number[] {
  const { sigCgt, shdPnd } = leader.status;
  const free = STOP_SIGNALS.filter((signal) => !isIn(shdPnd)(signal));
  const isCaught = isIn(sigCgt);
  return [...free.filter((signal) => !isCaught(signal)), ...free.filter(isCaught)];
}

/** Who catches all of them, as a Go program does, is made to stop by one that is not pending. */
function stopSignalFor(thread: Thread, mayStop: readonly number[]): number {
  const { sigPnd } = thread.status;
  return mayStop.find((signal) => !isIn(sigPnd)(signal)) ?? mayStop[0] ?? 23;
}
