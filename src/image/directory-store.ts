import { closeSync, readSync, type Stats } from 'node:fs';
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
    return this.#with(name, ({ stat }) => stat.size);
  }

  read(name: string, limit: number): Uint8Array | undefined {
    return this.#with(name, ({ fd, stat }) => readAll(this.display(name), fd, stat.size, limit));
  }

  readAt(name: string, into: Uint8Array, position: number): number {
    return (
      this.#with(name, ({ fd }) => {
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
    return this.#open(name)?.fd;
  }

  #open(name: string): { readonly fd: number; readonly stat: Stats } | undefined {
    const file = this.#directory.openFile(name);
    if (file === undefined || this.#trust) return file;
    try {
      checkTrust(this.display(name), file.stat);
      return file;
    } catch (error) {
      closeSync(file.fd);
      throw error;
    }
  }

  openPages(name: string): number | undefined {
    return this.open(name);
  }

  place(_name: string, offset: number, length: number): Iterable<Place> {
    return [{ at: offset, length }];
  }

  #with<T>(name: string, use: (file: { readonly fd: number; readonly stat: Stats }) => T): T | undefined {
    const file = this.#open(name);
    if (file === undefined) return undefined;
    try {
      return use(file);
    } finally {
      closeSync(file.fd);
    }
  }

  [Symbol.dispose](): void {
    this.#directory[Symbol.dispose]();
  }
}
