import { ERRNO } from '../abi/errno.js';
import { POLLIN } from '../abi/event.js';
import { O_CLOEXEC } from '../abi/fcntl.js';
import { PR_SET_PDEATHSIG } from '../abi/prctl.js';
import { __WALL } from '../abi/process.js';
import { PTRACE_CONT, PTRACE_EVENT_EXIT, PTRACE_O_TRACEEXIT, PTRACE_SEIZE } from '../abi/ptrace.js';
import { SIG_IGN, SIGACTION_SIZE, SIGPIPE, SIGTRAP } from '../abi/signal.js';
import { SyscallError } from '../kernel/errors.js';
import { OwnedFd } from '../kernel/fd.js';
import { insist } from '../kernel/insist.js';
import { scratch } from '../kernel/memory.js';
import { readRemote, writeRemote } from '../kernel/remote.js';
import { sleep_us, syscall } from '../kernel/syscall.js';
import { CODE_SIZE, ENTRY } from '../tape/layout.js';
import { goIfEqual } from '../tape/logic.js';
import { type Actor, LostTaskError, launch, playOne } from '../tape/play.js';
import { endStem, startStem } from '../tape/stem.js';
import { type Operand, type Result, Tape } from '../tape/tape.js';

/**
 * The guardian: a stem in a session of its own that finishes, or undoes, what this process was doing when it dies.
 *
 * It traces this thread with PTRACE_O_TRACEEXIT: a thread that is killed, by whatever, stops before it gives up
 * anything, its tracees in particular (kernel/exit.c do_exit: ptrace_event comes first, exit_notify with exit_ptrace
 * late). So whoever we hold still stands still while the guardian does what has to be done before they are released.
 * Where it may not trace us (somebody else does, or there is no right to), a pipe whose other end only we hold tells it
 * of our death, but `holds` is false: our tracees are released at about that time, and have to be kept by other means.
 *
 * Its tape is made of duties. They can be taken on and dropped while it watches: a whole new tape is written beside the
 * one that counts, and then eight bytes decide which does.
 */
export interface Duty {
  /** Before the dying process lets go of its tracees (where `holds`). */
  whileHeld?(tape: Tape, target: Target, descriptor: DescriptorOf): void;
  /** When they are nobody's tracees any more. */
  afterwards?(tape: Tape, target: Target): void;
}

/** A pidfd, in the guardian, of a process that it was told of, or of this one (open as long as it `holds`). */
export type Target = (pid: number) => Operand;
/** Its duplicate of a descriptor of this process that it was told of. */
export type DescriptorOf = (fd: number) => Operand;

const WORKSPACE = { address: 0x1000_0000_0000n, size: 0x200_0000n };
const WATCH_SIZE = 0x20_0000;
const DUTIES_SIZE = 0xe0_0000;
const WATCH_AT = WORKSPACE.address + BigInt(CODE_SIZE);
/** Two places for tapes of duties, one of which counts. */
const DUTIES_AT = [WATCH_AT + BigInt(WATCH_SIZE), WATCH_AT + BigInt(WATCH_SIZE + DUTIES_SIZE)] as const;
/** What wait4(2) says of a stop at PTRACE_EVENT_EXIT. */
const EXIT_STOP = (((PTRACE_EVENT_EXIT << 8) | SIGTRAP) << 8) | 0x7f;
const WATCH_TIMEOUT_MS = 5000;

interface Watch {
  readonly tape: Tape;
  readonly targets: ReadonlyMap<number, Result>;
  readonly descriptors: ReadonlyMap<number, Result>;
  /** The entry after which the duties come. */
  readonly last: Result;
  readonly holds: boolean;
}

export class Guardian implements Disposable {
  readonly #actor: Actor;
  readonly #alive: OwnedFd;
  /** In the guardian: the pipe, and a pidfd of this process. */
  readonly #pipe: number;
  readonly #controller: number;
  readonly #tid: number;
  readonly #duties = new Set<Duty>();
  #members: readonly number[] = [];
  #descriptors: readonly number[] = [];
  #watch: Watch | undefined;
  #turn = 0;

  private constructor(actor: Actor, alive: OwnedFd, pipe: number, controller: number) {
    this.#actor = actor;
    this.#alive = alive;
    this.#pipe = pipe;
    this.#controller = controller;
    this.#tid = syscall('gettid', []);
  }

  /** Start one whose pid is none of `taken`. It guards nothing yet, and dies with us. */
  static start(taken: ReadonlySet<number> = new Set()): Guardian {
    syscall('pipe2', [scratch.address, O_CLOEXEC]);
    using waiting = new OwnedFd(scratch.view.getInt32(0, true));
    const alive = new OwnedFd(scratch.view.getInt32(4, true));
    let actor: Actor | undefined;
    try {
      actor = startSpare(taken, 'the guardian', WORKSPACE, WATCH_SIZE);
      const setup = new Tape('guardian: session of its own, and the pipe');
      setup.call('setsid', []);
      setup.call('prctl', [PR_SET_PDEATHSIG, 0, 0, 0, 0]);
      // A stream that nobody reads any more is an answer.
      const ignore = new Uint8Array(SIGACTION_SIZE);
      ignore[0] = SIG_IGN;
      setup.call('rt_sigaction', [SIGPIPE, setup.space(ignore), 0, 8]);
      const controller = setup.call('pidfd_open', [process.pid, 0]);
      const pipe = setup.call('pidfd_getfd', [controller, waiting.fd, 0]);
      const played = playOne(actor, setup);
      // Here, where a failure still ends it.
      waiting[Symbol.dispose]();
      return new Guardian(actor, alive, Number(played.result(pipe)), Number(played.result(controller)));
    } catch (error) {
      if (actor !== undefined) endStem(actor.tid);
      alive[Symbol.dispose]();
      throw error;
    }
  }

  get pid(): number {
    return this.#actor.tid;
  }

  /** The processes that duties may be about, as this process sees them, and descriptors of it. Before the first duty. */
  know(pids: readonly number[], descriptors: readonly number[] = []): void {
    this.#members = pids;
    this.#descriptors = descriptors;
  }

  /** Does our death hold everybody still until the duties were done? From the first duty on. */
  get holds(): boolean {
    return this.#watch?.holds ?? false;
  }

  /** From here on our death leads to this. Throws when the guardian is not there any more. */
  take(duty: Duty): void {
    this.#duties.add(duty);
    this.#write(this.#watching());
  }

  /** A guardian that is not there any more has none: whoever takes the next one hears of that. */
  drop(duty: Duty): void {
    if (this.#duties.delete(duty)) this.refreshLate();
  }

  /** As `refresh`, where it is too late for a guardian that has died to change anything. */
  refreshLate(): void {
    try {
      insist(() => this.refresh());
    } catch (error) {
      if (!(error instanceof SyscallError) || error.errno !== ERRNO.ESRCH) throw error;
    }
  }

  /** What a duty leads to has changed. From here on it counts. Throws when the guardian is not there any more. */
  refresh(): void {
    if (this.#watch !== undefined) this.#write(this.#watch);
  }

  /** Let go of it, so that it watches. */
  #watching(): Watch {
    if (this.#watch !== undefined) return this.#watch;
    const tape = new Tape('guardian: watch');
    const targets = new Map(this.#members.map((pid) => [pid, tape.call('pidfd_open', [pid, 0], 'any')]));
    const descriptors = new Map(
      this.#descriptors.map((fd) => [fd, tape.call('pidfd_getfd', [this.#controller, fd, 0])]),
    );
    const [hold, death] = [tape.label(), tape.label()];
    tape.jump('ptrace', [PTRACE_SEIZE, this.#tid, 0, PTRACE_O_TRACEEXIT], hold);
    const isPiped = tape.call('getpid', []);
    tape.call('read', [this.#pipe, tape.space(8), 1], 'any');
    tape.jump('sched_yield', [], death);
    tape.place(hold);
    const isHeld = tape.call('getpid', []);
    this.#awaitExit(tape, death);
    tape.place(death);
    const [nothing] = [tape.label()];
    const last = tape.jump('sched_yield', [], nothing);
    tape.place(nothing);
    launch(this.#actor, tape);
    const holds = this.#learn(tape, isHeld, isPiped);
    this.#watch = { tape, targets, descriptors, last, holds };
    return this.#watch;
  }

  /** All signals on their way to us are passed on. A stop that is no signal's (PTRACE_CONT says EIO to its number) just goes on. */
  #awaitExit(tape: Tape, death: ReturnType<Tape['label']>): void {
    const status = tape.space(16);
    const again = tape.label();
    tape.place(again);
    tape.call('wait4', [this.#tid, status, __WALL, 0], 'any');
    goIfEqual(tape, status, EXIT_STOP, death);
    const signal = { kind: 'value', at: { kind: 'inside', space: status, at: 1 } } as const;
    tape.jump('ptrace', [PTRACE_CONT, this.#tid, 0, signal], again);
    tape.jump('ptrace', [PTRACE_CONT, this.#tid, 0, 0], again);
  }

  /** Which way did it go? */
  #learn(tape: Tape, isHeld: Result, isPiped: Result): boolean {
    const deadline = Date.now() + WATCH_TIMEOUT_MS;
    for (;;) {
      if (this.#cell(tape, isHeld) > 0n) return true;
      if (this.#cell(tape, isPiped) > 0n) return false;
      if (Date.now() > deadline) throw new LostTaskError('the guardian does not watch');
      sleep_us(20);
    }
  }

  #cell(tape: Tape, result: Result): bigint {
    const bytes = readRemote(this.#actor.tid, tape.entryAddress(result.index, WATCH_AT, ENTRY.result), 8);
    return new DataView(bytes.buffer, bytes.byteOffset).getBigInt64(0, true);
  }

  #write(watch: Watch): void {
    const tape = new Tape('guardian: when this process has died');
    const known = (results: ReadonlyMap<number, Result>, number: number, what: string): Operand => {
      const result = results.get(number);
      if (result === undefined) throw new Error(`the guardian does not know ${what} ${number}`);
      return { kind: 'value', at: watch.tape.entryAddress(result.index, WATCH_AT, ENTRY.result) };
    };
    const target: Target = (pid) =>
      pid === process.pid ? this.#controller : known(watch.targets, pid, 'pid');
    const descriptor: DescriptorOf = (fd) => known(watch.descriptors, fd, 'descriptor');
    for (const duty of this.#duties) duty.whileHeld?.(tape, target, descriptor);
    this.#release(tape, watch);
    for (const duty of this.#duties) duty.afterwards?.(tape, target);
    tape.call('exit_group', [0]);
    const at = DUTIES_AT[this.#turn] ?? DUTIES_AT[0];
    this.#turn = 1 - this.#turn;
    if (tape.size > DUTIES_SIZE)
      throw new RangeError(`the guardian's duties take ${tape.size} bytes, there is room for ${DUTIES_SIZE}`);
    writeRemote(this.#actor.tid, at, tape.assemble(at, 'exit'));
    const target_bytes = new Uint8Array(8);
    new DataView(target_bytes.buffer).setBigUint64(0, tape.entryAddress(0, at), true);
    writeRemote(
      this.#actor.tid,
      watch.tape.entryAddress(watch.last.index, WATCH_AT, ENTRY.expected),
      target_bytes,
    );
  }

  /** Let this process die, and wait until it has: then it traces nobody. */
  #release(tape: Tape, watch: Watch): void {
    if (watch.holds) {
      tape.call('ptrace', [PTRACE_CONT, this.#tid, 0, 0], 'any');
      tape.call('wait4', [this.#tid, 0, __WALL, 0], 'any');
      return;
    }
    const pollfd = new Uint8Array(16);
    const view = new DataView(pollfd.buffer);
    view.setInt32(0, this.#controller, true);
    view.setInt16(4, POLLIN, true);
    tape.call('poll', [tape.space(pollfd), 1, -1], 'any');
  }

  /** Nothing is left to guard. SIGKILL, so that none of its tapes plays on. */
  [Symbol.dispose](): void {
    endStem(this.#actor.tid);
    insist(() => this.#alive[Symbol.dispose]());
  }
}

/** Start a stem whose pid is none that a tree needs. */
export function startSpare(
  taken: ReadonlySet<number>,
  name: string,
  workspace: { address: bigint; size: bigint },
  sliceSize: number,
  sibling = false,
): Actor {
  const rejected: Actor[] = [];
  try {
    for (;;) {
      const actor = startStem({ workspace, sliceSize, name, sibling });
      if (!taken.has(actor.tid)) return actor;
      rejected.push(actor);
    }
  } finally {
    for (const actor of rejected) endStem(actor.tid);
  }
}
