import type { Result, Tape } from '../../tape/tape.js';
import type { Taker } from '../contract.js';

/** Descriptors taken out of the holder for one tape: each once, and all closed at its end. */
export class Taken {
  readonly #tape: Tape;
  readonly #taker: Taker;
  readonly #fds = new Map<string, Result>();

  constructor(tape: Tape, taker: Taker) {
    this.#tape = tape;
    this.#taker = taker;
  }

  get(key: string): Result {
    const fd = this.#fds.get(key) ?? this.#taker.take(key);
    this.#fds.set(key, fd);
    return fd;
  }

  /** Files first used long ago need not stay open: a task has only so many descriptors. */
  close(): void {
    for (const fd of this.#fds.values()) this.#tape.call('close', [fd]);
    this.#fds.clear();
  }
}
