import type { Stats } from 'node:fs';

/** Where an image is read from: a directory, or an archive. */
export interface ImageStore extends Disposable {
  /** The path a person knows it by. */
  readonly path: string;
  /** The path a person knows a file by. */
  display(name: string): string;
  /** Names of files, sorted. */
  list(): string[];
  /** Of the store itself. */
  stat(): Stats;
  /** Distinguishes stores, so that a chain of parents that leads back into itself is found. */
  identity(): string;
  /** Where the link `parent` leads, as an absolute path. */
  parent(): string | undefined;
  /** Length of a file in bytes; undefined where there is none. */
  size(name: string): number | undefined;
  /** The whole of a file, checked where it has a checksum; undefined where there is none. @throws ImageError */
  read(name: string, limit: number): Uint8Array | undefined;
  /** A descriptor of just this file, the caller's to close; undefined where there is none. */
  open(name: string): number | undefined;
  /** A descriptor, the caller's to close, of what has a file of pages at the places that `place` answers. */
  openPages(name: string): number | undefined;
  /** Where a range of a file of pages lies in what `openPages` opens. */
  place(name: string, offset: number, length: number): Iterable<Place>;
  /**
   * Compare all contents with the checksums they came with; undefined where there are none. `beat` is called for each
   * piece, so that others see it going on. @throws ImageError
   */
  verify?(beat?: () => void): void;
  /** Bytes of a file, from `position` on, until `into` is full or the file ends; answers how many. Nothing is checked. */
  readAt(name: string, into: Uint8Array, position: number): number;
}

export interface Place {
  readonly at: number;
  readonly length: number;
}
