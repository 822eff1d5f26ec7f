import { AT_FDCWD } from '../abi/fcntl.js';
import { OwnedFd } from '../kernel/fd.js';
import { scratch } from '../kernel/memory.js';
import { attempt, syscall } from '../kernel/syscall.js';
import { waitFor } from '../kernel/wait.js';
import { type Actor, launch, playOne } from '../tape/play.js';
import { startStem } from '../tape/stem.js';
import { Tape } from '../tape/tape.js';

/**
 * The guardian: a stem in a session of its own that waits on a pipe whose other end only this process holds. If this
 * process dies at an instant at which the tree must not simply run on, it finishes what was begun, or undoes it.
 * It is started before anything is touched, and ended when there is nothing left to guard.
 */
const WORKSPACE = { address: 0x1000_0000_0000n, size: 0x100_0000n };
const SLICE_SIZE = 0xf0_0000;
const O_CLOEXEC = 0x8_0000;
const SIGKILL = 9;
const SIGCONT = 18;
const SIGSTOP = 19;

export class Guardian implements Disposable {
  readonly #actor: Actor;
  readonly #alive: OwnedFd;
  /** The pipe's number in the guardian. */
  readonly #pipe: number;
  readonly #tape = new Tape('guardian');
  #armed = false;

  private constructor(actor: Actor, alive: OwnedFd, pipe: number) {
    this.#actor = actor;
    this.#alive = alive;
    this.#pipe = pipe;
  }

  /** Start one whose pid is none of `taken`. */
  static start(taken: ReadonlySet<number> = new Set()): Guardian {
    syscall('pipe2', [scratch.address, O_CLOEXEC]);
    using waiting = new OwnedFd(scratch.view.getInt32(0, true));
    const alive = new OwnedFd(scratch.view.getInt32(4, true));
    const actor = startSpare(taken, 'the guardian', WORKSPACE, SLICE_SIZE);
    const setup = new Tape('guardian: session of its own, and the pipe');
    setup.call('setsid', []);
    const controller = setup.call('pidfd_open', [process.pid, 0]);
    const pipe = setup.call('pidfd_getfd', [controller, waiting.fd, 0]);
    const played = playOne(actor, setup);
    return new Guardian(actor, alive, Number(played.result(pipe)));
  }

  /**
   * A dump that will kill, or leave stopped: if we die, the tree is killed (left as it is) when the image has its
   * inventory, and continued when not. Its threads are pinned by SIGSTOP meanwhile, so nobody runs before that.
   */
  armCommit(pids: readonly number[], inventory: string, kill: boolean): void {
    const tape = this.#tape;
    const targets = pids.map((pid) => tape.call('pidfd_open', [pid, 0]));
    this.#waitForDeath();
    // No inventory: the tape stops here, and its tail undoes the SIGSTOPs.
    tape.call('faccessat', [AT_FDCWD, tape.string(inventory), 0]);
    const committed = kill ? SIGKILL : SIGSTOP;
    for (const target of targets) tape.call('pidfd_send_signal', [target, committed, 0, 0], 'any');
    tape.call('kill', [this.#actor.tid, SIGKILL]);
    for (const target of targets) tape.cleanup('pidfd_send_signal', [target, SIGCONT, 0, 0]);
    this.#launch();
  }

  /** A restore: if we die before it is released as a whole, whatever was released is killed. */
  armRelease(pids: readonly number[]): void {
    const tape = this.#tape;
    const targets = pids.map((pid) => tape.call('pidfd_open', [pid, 0]));
    this.#waitForDeath();
    for (const target of targets) tape.call('pidfd_send_signal', [target, SIGKILL, 0, 0], 'any');
    this.#launch();
  }

  #waitForDeath(): void {
    this.#tape.call('read', [this.#pipe, this.#tape.space(8), 1], 0);
  }

  #launch(): void {
    launch(this.#actor, this.#tape);
    this.#armed = true;
  }

  get isArmed(): boolean {
    return this.#armed;
  }

  get pid(): number {
    return this.#actor.tid;
  }

  /** Nothing is left to guard. SIGKILL, so that its tail does not play. */
  [Symbol.dispose](): void {
    attempt('kill', [this.#actor.tid, SIGKILL]);
    while (waitFor(this.#actor.tid).kind === 'stopped');
    this.#alive[Symbol.dispose]();
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
    for (const { tid } of rejected) {
      attempt('kill', [tid, SIGKILL]);
      while (waitFor(tid).kind === 'stopped');
    }
  }
}
