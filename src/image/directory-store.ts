import { closeSync, fstatSync, readSync, type Stats } from 'node:fs';
import { checkTrust, ImageDirectory, readAll } from './directory.js';
import type { ImageStore, Place } from './store.js';

/** An image directory, to be read. */
export class DirectoryStore implements ImageStore {
  readonly path: string;
  readonly #directory: ImageDirectory;
  readonly #trust: boolean;

  private constructor(directory: ImageDirectory, trust: boolean) {
    this.path = directory.path;
    this.#directory = directory;
    this.#trust = trust;
  }

  /** With `trust`, files are read that another user owns or could change. */
  static open(directory: string, trust: boolean): DirectoryStore {
    return new DirectoryStore(ImageDirectory.open(directory), trust);
  }

  display(name: string): string {
    return this.#directory.display(name);
  }

  list(): string[] {
    return this.#directory.list();
  }

  stat(): Stats {
    return this.#directory.stat();
  }

  identity(): string {
    return this.#directory.identity();
  }

  parent(): string | undefined {
    return this.#directory.parent();
  }

  size(name: string): number | undefined {
    return this.#with(name, (fd) => fstatSync(fd).size);
  }

  read(name: string, limit: number): Uint8Array | undefined {
    return this.#with(name, (fd) => readAll(this.display(name), fd, limit));
  }

  readAt(name: string, into: Uint8Array, position: number): number {
    return (
      this.#with(name, (fd) => {
        let done = 0;
        while (done < into.length) {
          const count = readSync(fd, into, done, into.length - done, position + done);
          if (count === 0) break;
          done += count;
        }
        return done;
      }) ?? 0
    );
  }

  open(name: string): number | undefined {
    const fd = this.#directory.openFile(name);
    if (fd === undefined) return undefined;
    try {
      if (!this.#trust) checkTrust(this.display(name), fstatSync(fd));
      return fd;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  openPages(name: string): number | undefined {
    return this.open(name);
  }

  place(_name: string, offset: number, length: number): Iterable<Place> {
    return [{ at: offset, length }];
  }

  #with<T>(name: string, use: (fd: number) => T): T | undefined {
    const fd = this.open(name);
    if (fd === undefined) return undefined;
    try {
      return use(fd);
    } finally {
      closeSync(fd);
    }
  }

  [Symbol.dispose](): void {
    this.#directory[Symbol.dispose]();
  }
}
