import { closeSync, fstatSync, fsyncSync, lstatSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { ImageDirectory, writeAll } from './directory.js';
import { ImageError, reason } from './errors.js';
import { isRawFile, KINDS, kindOfFile, pagemapOfFile } from './kinds.js';
import type { CommitOptions, ImageFile, ImageTarget } from './target.js';

const INVENTORY_FILE = KINDS.inventory.file;
const INVENTORY_TEMPORARY = 'inventory.img.new';
/** Files beside CRIU's: checksums, what CRIU's format has no field for. */
const OWN_FILE = /^stasis-[a-z0-9-]+\.json$/;

/** Statistics and logs may share the directory with the image, and outlive it. */
const KEPT = new Set<string>([KINDS['stats-dump'].file, KINDS['stats-restore'].file]);

function isStale(name: string): boolean {
  if (KEPT.has(name)) return false;
  if (name === INVENTORY_TEMPORARY || OWN_FILE.test(name) || name === 'parent') return true;
  return kindOfFile(name) !== undefined || isRawFile(name) || pagemapOfFile(name) !== undefined;
}

/** An image directory as CRIU has it. It is valid from the moment on in which the inventory has its name. */
export class DirectoryTarget implements ImageTarget {
  readonly path: string;
  readonly #directory: ImageDirectory;
  readonly #files = new Map<string, DirectoryFile>();

  private constructor(directory: ImageDirectory) {
    this.#directory = directory;
    this.path = directory.path;
  }

  /** See ImageWriter.create. */
  static create(directory: string, options: { overwrite?: boolean } = {}): DirectoryTarget {
    const held = ImageDirectory.create(directory);
    try {
      const names = held.list();
      if (names.includes(INVENTORY_FILE)) {
        if (!options.overwrite) throw new ImageError(held.path, 'already holds an image');
        held.remove(INVENTORY_FILE);
        held.sync();
      }
      for (const name of names) if (isStale(name)) held.remove(name);
      return new DirectoryTarget(held);
    } catch (error) {
      held[Symbol.dispose]();
      throw error;
    }
  }

  create(name: string): ImageFile {
    const file = new DirectoryFile(this.#directory.display(name), this.#directory.createFile(name));
    this.#files.set(name, file);
    return file;
  }

  remove(name: string): void {
    this.#files.delete(name);
    this.#directory.remove(name);
  }

  link(target: string): void {
    const link = path.join(this.path, 'parent');
    if (lstatSync(link, { throwIfNoEntry: false }) !== undefined)
      throw new ImageError(link, 'is there already');
    symlinkSync(target, link);
  }

  /** The order is that of a journal: contents, then the name. */
  commit(inventory: Uint8Array, { durable, publish }: CommitOptions): void {
    const file = this.create(INVENTORY_TEMPORARY);
    file.write(inventory);
    file.close();
    try {
      if (durable) this.#syncFiles();
      publish(() => this.#directory.rename(INVENTORY_TEMPORARY, INVENTORY_FILE));
      // A failing fsync changes no more than when the name becomes durable, but whoever kills the source has to know.
      if (durable) this.#directory.sync();
    } catch (error) {
      // What remains must never look valid.
      this.#directory.remove(INVENTORY_FILE);
      this.remove(INVENTORY_TEMPORARY);
      if (error instanceof ImageError) throw error;
      throw new ImageError(this.path, `cannot be committed: ${reason(error)}`, { cause: error });
    }
  }

  #syncFiles(): void {
    for (const [name, file] of this.#files) {
      if (file.sync()) continue;
      // A write error is reported to the first fsync after it, through whichever descriptor.
      const fd = this.#directory.openFile(name)?.fd;
      if (fd === undefined) throw new ImageError(this.#directory.display(name), 'has disappeared');
      try {
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
    }
  }

  [Symbol.dispose](): void {
    for (const file of this.#files.values()) file.close();
    this.#directory[Symbol.dispose]();
  }
}

class DirectoryFile implements ImageFile {
  readonly #path: string;
  #fd: number;
  #bytes = 0;

  constructor(file: string, fd: number) {
    this.#path = file;
    this.#fd = fd;
  }

  get bytes(): number {
    return this.#bytes;
  }

  write(bytes: Uint8Array): void {
    if (this.#fd < 0) throw new ImageError(this.#path, 'was closed already');
    try {
      writeAll(this.#fd, bytes);
    } catch (error) {
      throw new ImageError(this.#path, `cannot be written: ${reason(error)}`, { cause: error });
    }
    this.#bytes += bytes.length;
  }

  /** False when it is closed. */
  sync(): boolean {
    if (this.#fd < 0) return false;
    fsyncSync(this.#fd);
    return true;
  }

  close(): void {
    if (this.#fd < 0) return;
    this.#bytes = fstatSync(this.#fd).size;
    closeSync(this.#fd);
    this.#fd = -1;
  }
}
