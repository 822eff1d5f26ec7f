import { closeSync, constants, fchmodSync, fsyncSync, openSync, renameSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import { IMAGE_FILE_NAME, writeAll } from '../directory.js';
import { ImageError, reason } from '../errors.js';
import { KINDS } from '../kinds.js';
import type { CommitOptions, ImageFile, ImageTarget } from '../target.js';
import { ArchiveEncoder } from './encoder.js';
import { FLAG_ANSWERS } from './format.js';

const INVENTORY_FILE = KINDS.inventory.file;

/** What streams and archives have in common: files are frames, and nothing that went out can be taken back. */
class FramedFiles {
  readonly #path: string;
  readonly #encoder: ArchiveEncoder;
  readonly #names = new Set<string>();

  constructor(name: string, write: (bytes: Uint8Array) => void, flags = 0) {
    this.#path = name;
    this.#encoder = new ArchiveEncoder(write, flags);
  }

  create(name: string): ImageFile {
    if (!IMAGE_FILE_NAME.test(name))
      throw new ImageError(this.#path, `${JSON.stringify(name)} is no name of an image file`);
    if (this.#names.has(name))
      throw new ImageError(this.#path, `${name} cannot be created: it is there already`);
    this.#names.add(name);
    return this.#encoder.file(name);
  }

  link(target: string): void {
    this.#encoder.link(target);
  }

  finish(inventory: Uint8Array): Ending {
    const file = this.create(INVENTORY_FILE);
    file.write(inventory);
    file.close();
    return this.#encoder.finish();
  }
}

/** The frames that say that the image is complete, and that its source will not run again. */
export interface Ending {
  readonly end: Uint8Array;
  readonly gone: Uint8Array;
}

/**
 * An image that goes out as a stream. END is its commit: one short write of its own, given to `publish`, for which no
 * reader can see a half (a pipe takes up to PIPE_BUF bytes at once or not at all; pipe(7)).
 */
export class StreamTarget implements ImageTarget {
  readonly path: string;
  readonly #write: (bytes: Uint8Array) => void;
  readonly #files: FramedFiles;
  /** The frames of the commit, once it is about to begin: whoever finishes it for us says the same. */
  ending: Ending | undefined;

  constructor(name: string, write: (bytes: Uint8Array) => void, options: { readonly answers: boolean }) {
    this.path = name;
    this.#write = write;
    this.#files = new FramedFiles(name, write, options.answers ? FLAG_ANSWERS : 0);
  }

  create(name: string): ImageFile {
    return this.#files.create(name);
  }

  /** What was sent is sent; without its end it is no image. */
  remove(_name: string): void {}

  link(target: string): void {
    this.#files.link(target);
  }

  commit(inventory: Uint8Array, { publish }: CommitOptions): void {
    const ending = this.#files.finish(inventory);
    this.ending = ending;
    publish(() => this.#write(ending.end));
  }

  [Symbol.dispose](): void {}
}

/** An image in one file. It has its name from the moment on in which it is complete. */
export class ArchiveTarget implements ImageTarget {
  readonly path: string;
  readonly #temporary: string;
  readonly #files: FramedFiles;
  #fd: number;

  private constructor(file: string, temporary: string, fd: number) {
    this.path = file;
    this.#temporary = temporary;
    this.#files = new FramedFiles(file, (bytes) => {
      try {
        writeAll(fd, bytes);
      } catch (error) {
        throw new ImageError(file, `cannot be written: ${reason(error)}`, { cause: error });
      }
    });
    this.#fd = fd;
  }

  /** @throws ImageError where there is a file already, unless `overwrite` is set: then that one goes first */
  static create(file: string, options: { overwrite?: boolean } = {}): ArchiveTarget {
    const absolute = path.resolve(file);
    const temporary = `${absolute}.new`;
    try {
      if (statSync(absolute, { throwIfNoEntry: false }) !== undefined) {
        if (!options.overwrite) throw new ImageError(absolute, 'is there already');
        rmSync(absolute);
      }
      // One that was left by somebody who died.
      rmSync(temporary, { force: true });
      const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
      const fd = openSync(temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
      fchmodSync(fd, 0o600);
      return new ArchiveTarget(absolute, temporary, fd);
    } catch (error) {
      if (error instanceof ImageError) throw error;
      throw new ImageError(absolute, `cannot be created: ${reason(error)}`, { cause: error });
    }
  }

  create(name: string): ImageFile {
    return this.#files.create(name);
  }

  /** All of it goes when it is not committed. */
  remove(_name: string): void {}

  link(target: string): void {
    this.#files.link(target);
  }

  commit(inventory: Uint8Array, { durable, publish }: CommitOptions): void {
    try {
      writeAll(this.#fd, this.#files.finish(inventory).end);
      if (durable) fsyncSync(this.#fd);
      publish(() => renameSync(this.#temporary, this.path));
      if (durable) syncDirectory(path.dirname(this.path));
    } catch (error) {
      rmSync(this.path, { force: true });
      if (error instanceof ImageError) throw error;
      throw new ImageError(this.path, `cannot be committed: ${reason(error)}`, { cause: error });
    }
    closeSync(this.#fd);
    this.#fd = -1;
  }

  [Symbol.dispose](): void {
    if (this.#fd < 0) return;
    closeSync(this.#fd);
    this.#fd = -1;
    rmSync(this.#temporary, { force: true });
  }
}

function syncDirectory(directory: string): void {
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
