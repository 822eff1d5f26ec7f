import { closeSync, openSync } from 'node:fs';
import path from 'node:path';
import { encodeImage, encodeImageParts, type RecordInput } from './codec.js';
import { writeAll } from './directory.js';
import { DirectoryTarget } from './directory-target.js';
import { ImageError, reason } from './errors.js';
import { fileOf, type IdOf, type ImageId, KINDS, type KindName, type MessageOf } from './kinds.js';
import type { inventory_entry } from './schema/generated/inventory_pb.js';
import type { CommitOptions, ImageFile, ImageTarget } from './target.js';

const INVENTORY_FILE = KINDS.inventory.file;
export const CHECKSUMS_FILE = 'stasis-checksums.json';

/**
 * Writes an image to wherever it goes. Nothing counts until `commit`, whose last act is the inventory's appearance (or
 * the end of a stream); disposing before that removes every file written, so a failed dump leaves nothing.
 */
export class ImageWriter implements Disposable {
  /** Where it goes, as a person knows it. */
  readonly directory: string;
  readonly #target: ImageTarget;
  readonly #files = new Map<string, ImageFile>();
  #state: 'open' | 'committed' | 'abandoned' = 'open';
  /** Files to be written by `release`, in order; undefined while nothing is held back. */
  #held: (() => void)[] | undefined;

  /** The target becomes this writer's. */
  constructor(target: ImageTarget) {
    this.#target = target;
    this.directory = target.path;
  }

  /**
   * Makes the directory (0700) where it is missing. One that holds an image is refused, unless `overwrite` is set:
   * then its inventory goes first, so that no mixture is ever valid. Left-overs of a dump that failed go as well, for
   * a stale file of an optional kind would be read as a part of the new image.
   */
  static create(directory: string, options: { overwrite?: boolean } = {}): ImageWriter {
    return new ImageWriter(DirectoryTarget.create(directory, options));
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

  /** As `writeRecords`, at once even while others are held back: for data that is too much to be kept in memory. */
  writeNow<K extends KindName>(kind: K, id: IdOf<K>, records: readonly RecordInput<K>[]): void {
    this.writeBytes(fileOf(kind, id as ImageId | null), encodeImageParts(kind, records));
  }

  /** Writes one whole file of bytes that are already encoded. */
  writeBytes(name: string, parts: readonly Uint8Array[]): void {
    const file = this.openRaw(name);
    try {
      for (const part of parts) file.write(part);
    } finally {
      file.close();
    }
  }

  /** A new file that the caller fills, such as pages-1.img, and closes when it is complete. */
  openRaw(name: string): ImageFile {
    this.#assertOpen();
    const file = this.#target.create(name);
    this.#files.set(name, file);
    return file;
  }

  /** Makes this image an increment of another one: the link `parent`, relative as CRIU wants it. */
  linkParent(parent: string): void {
    this.#assertOpen();
    const target = path.relative(this.directory, path.resolve(parent));
    this.#target.link(target === '' ? '.' : target);
    this.#files.set('parent', { bytes: 0, write() {}, close() {} });
  }

  /** Bytes by file name, of what has been written so far. */
  get bytes(): ReadonlyMap<string, number> {
    return new Map([...this.#files].map(([name, file]) => [name, file.bytes]));
  }

  /**
   * Makes the image valid: everything else reaches its place, then the inventory appears at once. With `durable`
   * false (tmpfs, or an image about to be sent on) nothing is waited for, but the order of appearance is the same.
   * On failure the image can still be abandoned. `publish` is for who has to do something around that very moment.
   */
  commit(inventory: inventory_entry, options: Partial<CommitOptions> = {}): void {
    this.#assertOpen();
    this.release();
    const { durable = true, publish = (act) => act() } = options;
    const bytes = encodeImage('inventory', [{ message: inventory }]);
    for (const [name, file] of this.#files) if (name !== 'parent') file.close();
    this.#target.commit(bytes, { durable, publish });
    this.#files.set(INVENTORY_FILE, { bytes: bytes.length, write() {}, close() {} });
    this.#state = 'committed';
    this.#target[Symbol.dispose]();
  }

  /** Removes every file this writer made. The directory stays. Does nothing once committed or abandoned. */
  abandon(): void {
    if (this.#state !== 'open') return;
    this.#state = 'abandoned';
    const failures: unknown[] = [];
    for (const [name, file] of this.#files) {
      try {
        file.close();
        this.#target.remove(name);
      } catch (error) {
        failures.push(error);
      }
    }
    this.#target[Symbol.dispose]();
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
