import type { ImageReader } from '../../image/reader.js';
import type { Result, Tape } from '../../tape/tape.js';
import type { Taker } from '../contract.js';
import { ADDRESSES, addressFileOf } from './address-file.js';
import { type Descriptors, keyOfPages } from './runs.js';

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

  /** For what reads pages of an image. */
  pagesOf(reader: ImageReader): Descriptors {
    const file = addressFileOf(reader);
    return {
      pages: (run) => this.get(keyOfPages(reader, run)),
      addresses: file === undefined ? undefined : { file, fd: () => this.get(ADDRESSES) },
    };
  }

  /** Files first used long ago need not stay open: a task has only so many descriptors. */
  close(): void {
    for (const fd of this.#fds.values()) this.#tape.call('close', [fd]);
    this.#fds.clear();
  }
}
