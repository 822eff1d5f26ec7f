import { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { ENGINE_FIRST_FD, Engine, type EngineOptions } from './engine.js';

/** What makes a path an archive's. */
export const ARCHIVE_SUFFIX = '.stasis';

/** Patience with the other end of a stream, in milliseconds. */
export interface StreamPatience {
  /** How long nothing may move; a minute. */
  readonly stall_ms?: number;
  /** How long the other end may take for an answer; two minutes. */
  readonly ready_ms?: number;
}

/** A pipe or socket of this process. It stays this process's, and is neither closed nor set to anything. */
export interface StreamDescriptor extends StreamPatience {
  readonly fd: number;
  /** Where the other end answers, or is answered. */
  readonly answers?: number;
}

/** Where an image goes: a directory, an archive (a path that ends in `.stasis`), a stream. */
export type ImageSink = string | Writable | StreamDescriptor;
/** Where an image comes from; a stream may be told where it lies, without a name, until it is whole. */
export type ImageOrigin = string | Readable | (StreamDescriptor & { readonly spool?: string });

export function isNodeStream<T>(place: T): place is Extract<T, Readable | Writable> {
  return place instanceof Readable || place instanceof Writable;
}

/** An engine of its own with sockets for streams of Node.js, which are moved by this process's event loop. */
export class StreamEngine {
  readonly engine: Engine;
  /** Numbers in the engine. */
  readonly fd = ENGINE_FIRST_FD;
  readonly answers: number | undefined;
  readonly #moves: Promise<void>[] = [];

  constructor(options: EngineOptions, hasAnswers: boolean) {
    const fds = options.fds ?? [];
    this.engine = new Engine({
      ...options,
      fds: [...(hasAnswers ? (['pipe', 'pipe'] as const) : (['pipe'] as const)), ...fds],
    });
    this.answers = hasAnswers ? this.fd + 1 : undefined;
  }

  /** The number of the first of the caller's own descriptors. */
  get next(): number {
    return (this.answers ?? this.fd) + 1;
  }

  /** Bytes of the engine's descriptor go to a stream, which is ended with it. */
  read(fd: number, to: Writable): void {
    this.#move(pipeline(this.engine.channel(fd), to));
  }

  write(fd: number, from: Readable): void {
    this.#move(pipeline(from, this.engine.channel(fd)));
  }

  #move(move: Promise<void>): void {
    // What went wrong with a stream is for the engine to say, which finds it broken.
    this.#moves.push(move.catch(() => {}));
  }

  /** All that was sent has arrived in the streams. */
  async settled(): Promise<void> {
    await Promise.all(this.#moves);
  }
}
