import { F_DUPFD_CLOEXEC } from '../../abi/fcntl.js';
import type { Deferred, Tape } from '../../tape/tape.js';
import type { Holder, Result, Taker } from '../contract.js';

/** Takes descriptors out of the holder on one tape of a task. */
export class StemTaker implements Taker {
  readonly #tape: Tape;
  readonly #holder: Holder;
  readonly #pid: Deferred;
  #pidfd: Result | undefined;

  /** `pid` is the holder's, as the task sees it. */
  constructor(tape: Tape, holder: Holder, pid: Deferred) {
    this.#tape = tape;
    this.#holder = holder;
    this.#pid = pid;
  }

  take(key: string): Result {
    this.#pidfd ??= this.#open();
    return this.#tape.call('pidfd_getfd', [this.#pidfd, this.#holder.slot(key), 0]);
  }

  /**
   * The table was just emptied: have the descriptor for the holder at exactly this number, which is then the lowest
   * free one from there on.
   */
  restart(number: number): void {
    const pidfd = this.#open();
    if (number === 0) {
      this.#pidfd = pidfd;
      return;
    }
    this.#pidfd = this.#tape.call('fcntl', [pidfd, F_DUPFD_CLOEXEC, number], number);
    this.#tape.call('close', [pidfd]);
  }

  /** Close what it needed itself. Nothing is taken on this tape any more. */
  done(): void {
    if (this.#pidfd !== undefined) this.#tape.call('close', [this.#pidfd]);
    this.#pidfd = undefined;
  }

  #open(): Result {
    return this.#tape.call('pidfd_open', [this.#pid, 0]);
  }
}
