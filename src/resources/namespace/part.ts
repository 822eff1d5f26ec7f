import type { ImageReader, ImageWriter } from '../../image/index.js';

/**
 * A part of what is in a network namespace. All functions but `write` and `load` are of the namespace this thread is in
 * (kernel/namespace.ts).
 */
export interface Part<T> {
  /** "addresses": how a refusal calls it. */
  readonly name: string;
  read(): T;
  /** One line for each thing that has to be the same in a copy, for people as well; counters and ages left out. */
  lines(content: T): readonly string[];
  /** Make it in a namespace that was just born. Absent of what only is looked at, and cannot be made. */
  build?(content: T): void;
  /** It comes only when all sockets are there, which are filled by packets of ours. */
  readonly isLate?: boolean;
  /** `of` answers the content of another part. */
  write?(content: T, writer: ImageWriter, id: number, of: <U>(part: Part<U>) => U): void;
  load?(reader: ImageReader, id: number): T;
}
