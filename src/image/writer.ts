import { closeSync, fstatSync, fsyncSync, lstatSync, openSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { encodeImage, type RecordInput } from './codec.js';
import { ImageDirectory, writeAll } from './directory.js';
import { ImageError, reason } from './errors.js';
import {
  fileOf,
  type IdOf,
  type ImageId,
  isRawFile,
  KINDS,
  type KindName,
  kindOfFile,
  type MessageOf,
  pagemapOfFile,
} from './kinds.js';
import type { inventory_entry } from './schema/generated/inventory_pb.js';

const INVENTORY_FILE = KINDS.inventory.file;
const INVENTORY_TEMPORARY = 'inventory.img.new';
export const CHECKSUMS_FILE = 'stasis-checksums.json';
/** Files beside CRIU's: checksums, what CRIU's format has no field for. */
const OWN_FILE = /^stasis-[a-z0-9-]+\.json$/;

/** Statistics and logs may share the directory with the image, and outlive it. */
const KEPT = new Set<string>([KINDS['stats-dump'].file, KINDS['stats-restore'].file]);

function isStale(name: string): boolean {
  if (KEPT.has(name)) return false;
  if (name === INVENTORY_TEMPORARY || OWN_FILE.test(name) || name === 'parent') return true;
  return kindOfFile(name) !== undefined || isRawFile(name) || pagemapOfFile(name) !== undefined;
}

/**
 * Writes an image into a directory. Nothing counts until `commit`, whose last act is the inventory's appearance;
 * disposing before that removes every file written, so a failed dump leaves nothing.
 */
export class ImageWriter implements Disposable {
  readonly directory: string;
  readonly #directory: ImageDirectory;
  /** Files written so far; a number is a descriptor still open. */
  readonly #files = new Map<string, { fd: number | undefined; bytes: number }>();
  #state: 'open' | 'committed' | 'abandoned' = 'open';
  /** Files to be written by `release`, in order; undefined while nothing is held back. */
  #held: (() => void)[] | undefined;

  private constructor(directory: ImageDirectory) {
    this.#directory = directory;
    this.directory = directory.path;
  }

  /**
   * Makes the directory (0700) where it is missing. One that holds an image is refused, unless `overwrite` is set:
   * then its inventory goes first, so that no mixture is ever valid. Left-overs of a dump that failed go as well, for
   * a stale file of an optional kind would be read as a part of the new image.
   */
  static create(directory: string, options: { overwrite?: boolean } = {}): ImageWriter {
    const held = ImageDirectory.create(directory);
    try {
      const names = held.list();
      if (names.includes(INVENTORY_FILE)) {
        if (!options.overwrite) throw new ImageError(held.path, 'already holds an image');
        held.remove(INVENTORY_FILE);
        held.sync();
      }
      for (const name of names) if (isStale(name)) held.remove(name);
      return new ImageWriter(held);
    } catch (error) {
      held[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * From here on messages are kept, neither encoded nor written, until `release`: making files takes longer than
   * anything else of a dump, and need not happen while the tree is frozen. They must not be changed meanwhile.
   */
  hold(): void {
    this.#held ??= [];
  }

  /** Write what was held back. */
  release(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const write of held) write();
  }

  /** Writes one file of messages. @throws ImageError also when the file was written before */
  write<K extends KindName>(kind: K, id: IdOf<K>, messages: readonly MessageOf<K>[]): void {
    this.writeRecords(
      kind,
      id,
      messages.map((message) => ({ message })),
    );
  }

  /** Writes one file of messages, with raw bytes after them. */
  writeRecords<K extends KindName>(kind: K, id: IdOf<K>, records: readonly RecordInput<K>[]): void {
    if (this.#held !== undefined) {
      this.#held.push(() => this.writeRecords(kind, id, records));
      return;
    }
    this.writeBytes(fileOf(kind, id as ImageId | null), [encodeImage(kind, records)]);
  }

  /** Writes one whole file of bytes that are already encoded. */
  writeBytes(name: string, parts: readonly Uint8Array[]): void {
    const fd = this.#create(name);
    let bytes = 0;
    try {
      for (const part of parts) {
        writeAll(fd, part);
        bytes += part.length;
      }
    } catch (error) {
      throw new ImageError(this.#directory.display(name), `cannot be written: ${reason(error)}`, {
        cause: error,
      });
    } finally {
      this.#files.set(name, { fd: undefined, bytes });
      closeSync(fd);
    }
  }

  /** A new file that the caller fills, such as pages-1.img. The descriptor stays this writer's, which closes it. */
  openRaw(name: string): number {
    return this.#create(name);
  }

  /** Closes a file of `openRaw` that is complete, so that its descriptor is free for others. */
  closeRaw(name: string): void {
    const file = this.#files.get(name);
    if (file?.fd === undefined) return;
    const { fd } = file;
    this.#files.set(name, { fd: undefined, bytes: fstatSync(fd).size });
    closeSync(fd);
  }

  /** Makes this image an increment of another one: the link `parent`, relative as CRIU wants it. */
  linkParent(parent: string): void {
    this.#assertOpen();
    const target = path.relative(this.directory, path.resolve(parent));
    const link = path.join(this.directory, 'parent');
    if (lstatSync(link, { throwIfNoEntry: false }) !== undefined)
      throw new ImageError(link, 'is there already');
    symlinkSync(target === '' ? '.' : target, link);
    this.#files.set('parent', { fd: undefined, bytes: 0 });
  }

  /** Bytes by file name, of what has been written so far. */
  get bytes(): ReadonlyMap<string, number> {
    return new Map(
      [...this.#files].map(([name, file]) => [
        name,
        file.fd === undefined ? file.bytes : fstatSync(file.fd).size,
      ]),
    );
  }

  /**
   * Makes the image valid: everything else reaches the disk, then the inventory appears at once. With `durable`
   * false (tmpfs, or an image about to be sent on) nothing is waited for, but the order of appearance is the same.
   * On failure the image can still be abandoned.
   */
  commit(inventory: inventory_entry, options: { durable?: boolean } = {}): void {
    this.#assertOpen();
    this.release();
    const durable = options.durable ?? true;
    this.writeBytes(INVENTORY_TEMPORARY, [encodeImage('inventory', [{ message: inventory }])]);
    try {
      if (durable) this.#syncFiles();
      this.#directory.rename(INVENTORY_TEMPORARY, INVENTORY_FILE);
    } catch (error) {
      if (error instanceof ImageError) throw error;
      throw new ImageError(this.directory, `cannot be committed: ${reason(error)}`, { cause: error });
    }
    // From here on the image is valid, and must not be removed: a failing fsync of the directory changes no more
    // than when the name becomes durable, but the caller has to hear of it before it kills the source.
    const written = this.#files.get(INVENTORY_TEMPORARY);
    this.#files.delete(INVENTORY_TEMPORARY);
    if (written !== undefined) this.#files.set(INVENTORY_FILE, written);
    try {
      if (durable) this.#directory.sync();
    } catch (error) {
      throw new ImageError(this.directory, `cannot be committed: ${reason(error)}`, { cause: error });
    }
    this.#state = 'committed';
    this.#close();
  }

  /** Removes every file this writer made. The directory stays. Does nothing once committed or abandoned. */
  abandon(): void {
    if (this.#state !== 'open') return;
    this.#state = 'abandoned';
    // The inventory first, should a failed commit have left one: what remains must never look valid.
    const names = [...this.#files.keys()].sort(
      (a, b) => Number(b === INVENTORY_FILE) - Number(a === INVENTORY_FILE),
    );
    const failures: unknown[] = [];
    for (const name of names) {
      try {
        this.#directory.remove(name);
      } catch (error) {
        failures.push(error);
      }
    }
    this.#close();
    if (failures.length > 0) {
      throw new ImageError(this.directory, `cannot be emptied: ${reason(failures[0])}`, {
        cause: failures[0],
      });
    }
  }

  [Symbol.dispose](): void {
    this.abandon();
  }

  #assertOpen(): void {
    if (this.#state !== 'open') throw new ImageError(this.directory, `the image was ${this.#state} already`);
  }

  #create(name: string): number {
    this.#assertOpen();
    const fd = this.#directory.createFile(name);
    this.#files.set(name, { fd, bytes: 0 });
    return fd;
  }

  #syncFiles(): void {
    for (const [name, file] of this.#files) {
      if (name === 'parent') continue;
      if (file.fd !== undefined) {
        fsyncSync(file.fd);
        continue;
      }
      // A write error is reported to the first fsync after it, through whichever descriptor.
      const fd = this.#directory.openFile(name);
      if (fd === undefined) throw new ImageError(this.#directory.display(name), 'has disappeared');
      try {
        fsyncSync(fd);
      } finally {
        closeSync(fd);
      }
    }
  }

  #close(): void {
    for (const file of this.#files.values()) {
      if (file.fd === undefined) continue;
      file.bytes = fstatSync(file.fd).size;
      closeSync(file.fd);
      file.fd = undefined;
    }
    this.#directory[Symbol.dispose]();
  }
}

/** Writes a file outside an image, as CRIU's statistics in the work directory are; replaces an earlier one. */
export function writeFileOfKind<K extends KindName>(
  file: string,
  kind: K,
  messages: readonly MessageOf<K>[],
): void {
  const bytes = encodeImage(
    kind,
    messages.map((message) => ({ message })),
  );
  try {
    const fd = openSync(file, 'w', 0o600);
    try {
      writeAll(fd, bytes);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw new ImageError(file, `cannot be written: ${reason(error)}`, { cause: error });
  }
}
