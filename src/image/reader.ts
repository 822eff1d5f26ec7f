import { statSync } from 'node:fs';
import { ArchiveStore } from './archive/store.js';
import { decodeHead, decodeImage, type ImageRecord } from './codec.js';
import { checkTrust } from './directory.js';
import { DirectoryStore } from './directory-store.js';
import { ImageError } from './errors.js';
import { fileOf, type IdArgument, type ImageId, type KindName, type MessageOf } from './kinds.js';
import { decodePagemap, type Pagemap } from './pagemap.js';
import type { inventory_entry } from './schema/generated/inventory_pb.js';
import type { ImageStore, Place } from './store.js';

/** Metadata files are read whole; a longer one is no image of ours or CRIU's. Pages are never read here. */
export const FILE_BYTES_MAX = 512 * 1024 * 1024;
/** How many increments an image may have below it. */
const PARENTS_MAX = 1024;

export interface ReaderOptions {
  /** Accept files that another user owns or could change. */
  readonly trust?: boolean;
  /** A smaller limit for the length of a metadata file, in bytes. */
  readonly file_bytes_max?: number;
}

/** A first message is never longer than this, where only that is read. */
const HEAD_BYTES = 64 * 1024;

/** Files up to this size stay in memory once they were read. */
const MEMORY_BYTES = 256 * 1024;

/**
 * Reads an image directory, of ours or of CRIU's, or an archive. All that can be wrong with one is thrown as an
 * ImageError.
 */
export class ImageReader implements Disposable {
  /** Where it is, as a person knows it. */
  readonly directory: string;
  readonly #store: ImageStore;
  readonly #options: ReaderOptions;
  readonly #ancestors: readonly string[];
  #inventory: inventory_entry | undefined;
  #parent: ImageReader | undefined;
  /** What was decoded, but for large files: the whole image is checked first, and then read. */
  readonly #decoded = new Map<string, unknown>();
  /** Small pagemaps. */
  readonly #pagemaps = new Map<string, Pagemap>();
  /** The pagemap read last: it is looked at several times in a row, and can be large. */
  #recent: { readonly name: string; readonly pagemap: Pagemap } | undefined;

  private constructor(store: ImageStore, options: ReaderOptions, ancestors: readonly string[]) {
    this.directory = store.path;
    this.#store = store;
    this.#options = options;
    this.#ancestors = ancestors;
  }

  /** Opens a directory or an archive, and reads its inventory, without which there is no image. */
  static open(path: string, options: ReaderOptions = {}): ImageReader {
    return ImageReader.#complete(ImageReader.#open(path, options, []));
  }

  /** An image that is in our hands already; the store becomes this reader's. */
  static of(store: ImageStore): ImageReader {
    return ImageReader.#complete(new ImageReader(store, { trust: true }, []));
  }

  static #complete(reader: ImageReader): ImageReader {
    try {
      reader.#readInventory();
      return reader;
    } catch (error) {
      reader[Symbol.dispose]();
      throw error;
    }
  }

  static #open(path: string, options: ReaderOptions, ancestors: readonly string[]): ImageReader {
    const held = storeAt(path, options);
    try {
      if (!options.trust) checkTrust(held.path, held.stat());
      if (ancestors.includes(held.identity())) throw new ImageError(held.path, 'is its own parent');
      if (ancestors.length >= PARENTS_MAX)
        throw new ImageError(held.path, `has over ${PARENTS_MAX} children`);
      return new ImageReader(held, options, ancestors);
    } catch (error) {
      held[Symbol.dispose]();
      throw error;
    }
  }

  #readInventory(): inventory_entry {
    const file = this.#store.display('inventory.img');
    const messages = this.readOptional('inventory');
    if (messages === undefined)
      throw new ImageError(file, 'is missing: there is no image, or only part of one');
    const [inventory] = messages;
    if (inventory === undefined || messages.length !== 1) throw new ImageError(file, 'holds no single entry');
    this.#inventory = inventory;
    return inventory;
  }

  get inventory(): inventory_entry {
    return this.#inventory ?? this.#readInventory();
  }

  /** The names of the files in the directory, sorted. */
  list(): string[] {
    return this.#store.list();
  }

  /** The messages of a file that has to be there. */
  read<K extends KindName>(kind: K, ...id: IdArgument<K>): MessageOf<K>[] {
    return this.records(kind, ...id).map((record) => record.message);
  }

  /** As `read`, for a file that is only there when it is needed; undefined without it. */
  readOptional<K extends KindName>(kind: K, ...id: IdArgument<K>): MessageOf<K>[] | undefined {
    return this.recordsOptional(kind, ...id)?.map((record) => record.message);
  }

  /** The only message of a file that has exactly one. */
  readOne<K extends KindName>(kind: K, ...id: IdArgument<K>): MessageOf<K> {
    const messages = this.read(kind, ...id);
    const [message] = messages;
    if (message !== undefined && messages.length === 1) return message;
    const file = this.#store.display(fileOf(kind, (id as ImageId[])[0] ?? null));
    throw new ImageError(file, `has ${messages.length} entries instead of one`);
  }

  /** Messages and the raw bytes after each. */
  records<K extends KindName>(kind: K, ...id: IdArgument<K>): ImageRecord<K>[] {
    const records = this.recordsOptional(kind, ...id);
    if (records !== undefined) return records;
    throw new ImageError(this.#store.display(fileOf(kind, (id as ImageId[])[0] ?? null)), 'is missing');
  }

  recordsOptional<K extends KindName>(kind: K, ...id: IdArgument<K>): ImageRecord<K>[] | undefined {
    return this.recordsOf(kind, fileOf(kind, (id as ImageId[])[0] ?? null));
  }

  /** As `recordsOptional`, by the name of the file. */
  recordsOf<K extends KindName>(kind: K, name: string): ImageRecord<K>[] | undefined {
    const known = this.#decoded.get(name);
    if (known !== undefined) return known as ImageRecord<K>[];
    const bytes = this.bytes(name);
    if (bytes === undefined) return undefined;
    const records = decodeImage(kind, bytes, this.#store.display(name));
    if (bytes.length <= MEMORY_BYTES) this.#decoded.set(name, records);
    return records;
  }

  /**
   * The first message of a file whose raw data may be long and is not read: where that begins, and how long the file is,
   * in bytes. Undefined when it is missing.
   */
  head<K extends KindName>(
    kind: K,
    ...id: IdArgument<K>
  ): { message: MessageOf<K>; offset: number; size: number } | undefined {
    const name = fileOf(kind, (id as ImageId[])[0] ?? null);
    const size = this.size(name);
    if (size === undefined) return undefined;
    const bytes = new Uint8Array(Math.min(size, HEAD_BYTES));
    const length = this.readAt(name, bytes, 0);
    const { message, offset } = decodeHead(kind, bytes.subarray(0, length), this.#store.display(name));
    return { message, offset, size };
  }

  /** A file's bytes; undefined when it is missing. */
  bytes(name: string): Uint8Array | undefined {
    return this.#store.read(name, this.#options.file_bytes_max ?? FILE_BYTES_MAX);
  }

  /** A file's length in bytes; undefined when it is missing. */
  size(name: string): number | undefined {
    return this.#store.size(name);
  }

  /** Bytes of a file from `position` on, as many as there are and fit. Checksums are the caller's to look after. */
  readAt(name: string, into: Uint8Array, position: number): number {
    return this.#store.readAt(name, into, position);
  }

  /** Does every piece of it have a checksum where it is (archives)? */
  get hasOwnChecksums(): boolean {
    return this.#store.verify !== undefined;
  }

  /** Compare everything with those checksums; nothing to do where there are none. @throws ImageError with the first difference */
  verifyOwn(beat?: () => void): void {
    this.#store.verify?.(beat);
  }

  /** A descriptor of a file for reading, the caller's to close; undefined when there is no such file. */
  open(name: string): number | undefined {
    return this.#store.open(name);
  }

  /** A descriptor, the caller's to close, in which pages-ID.img lies as `placePages` says. */
  openPages(id: number): number {
    const name = `pages-${id}.img`;
    const fd = this.#store.openPages(name);
    if (fd === undefined) throw new ImageError(this.#store.display(name), 'is missing');
    return fd;
  }

  /** Where a range of pages-ID.img is: in one piece in a directory, in several in an archive. */
  placePages(id: number, offset: number, length: number): Iterable<Place> {
    return this.#store.place(`pages-${id}.img`, offset, length);
  }

  /** Which pages of a process (or, with `shmem`, of a shared mapping) the image has; undefined without a pagemap. */
  pagemap(id: ImageId, options: { shmem?: boolean } = {}): Pagemap | undefined {
    const name = `pagemap-${options.shmem ? 'shmem-' : ''}${id}.img`;
    const known = this.#recent?.name === name ? this.#recent.pagemap : this.#pagemaps.get(name);
    if (known !== undefined) return known;
    const bytes = this.bytes(name);
    if (bytes === undefined) return undefined;
    const pagemap = decodePagemap(bytes, this.#store.display(name));
    this.#recent = { name, pagemap };
    if (bytes.length <= MEMORY_BYTES / 8) this.#pagemaps.set(name, pagemap);
    return pagemap;
  }

  /** The image this one is an increment of. It is closed together with this one. */
  parent(): ImageReader | undefined {
    if (this.#parent !== undefined) return this.#parent;
    const target = this.#store.parent();
    if (target === undefined) return undefined;
    if (statSync(target, { throwIfNoEntry: false }) === undefined)
      throw new ImageError(this.#store.display('parent'), `${target} is no directory, and no archive`);
    const ancestors = [...this.#ancestors, this.#store.identity()];
    this.#parent = ImageReader.#open(target, this.#options, ancestors);
    return this.#parent;
  }

  [Symbol.dispose](): void {
    this.#parent?.[Symbol.dispose]();
    this.#parent = undefined;
    this.#store[Symbol.dispose]();
  }
}

function storeAt(path: string, options: ReaderOptions): ImageStore {
  if (statSync(path, { throwIfNoEntry: false })?.isFile() === true) return ArchiveStore.open(path);
  return DirectoryStore.open(path, options.trust === true);
}
