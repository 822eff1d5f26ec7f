import { timingSafeEqual } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readSync, type Stats } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { writeAll } from '../directory.js';
import { ImageError, reason } from '../errors.js';
import type { ImageStore, Place } from '../store.js';
import { ArchiveContents, type ArchivedFile } from './contents.js';
import {
  type ArchiveHeader,
  CONTROL_BYTES_MAX,
  DATA_BYTES_MAX,
  decodeFrame,
  decodeHeader,
  digestIn,
  FRAME,
  FRAME_HEADER_BYTES,
  type FrameHeader,
  HEADER_BYTES,
  startDigest,
} from './format.js';

/** O_TMPFILE of x86-64 (include/uapi/asm-generic/fcntl.h), which Node does not name. */
const O_TMPFILE = 0o20200000;

/**
 * An image in one file. Opening it goes from header to header: names, order and sizes are known then, and metadata are
 * compared with their checksums when they are read. Pages stay where they are, and are read in place by who needs them.
 */
export class ArchiveStore implements ImageStore {
  readonly path: string;
  readonly #fd: number;
  readonly #header: ArchiveHeader;
  readonly #contents: ArchiveContents;
  readonly #buffer = Buffer.allocUnsafeSlow(DATA_BYTES_MAX);
  #isOpen = true;

  /** The descriptor becomes the store's. */
  constructor(name: string, fd: number, header: ArchiveHeader, contents: ArchiveContents) {
    this.path = name;
    this.#fd = fd;
    this.#header = header;
    this.#contents = contents;
  }

  /** @throws ImageError for what is no archive, or a part of one */
  static open(file: string): ArchiveStore {
    const absolute = path.resolve(file);
    let fd: number;
    try {
      fd = openSync(absolute, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (error) {
      throw new ImageError(absolute, `cannot be opened: ${reason(error)}`, { cause: error });
    }
    try {
      const { header, contents } = scan(absolute, fd);
      return new ArchiveStore(absolute, fd, header, contents);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  display(name: string): string {
    return `${this.path}:${name}`;
  }

  list(): string[] {
    const names = [...this.#contents.files.keys()];
    if (this.#contents.parent !== undefined) names.push('parent');
    return names.sort();
  }

  stat(): Stats {
    return fstatSync(this.#fd);
  }

  identity(): string {
    const { dev, ino } = this.stat();
    return `${dev}:${ino}`;
  }

  /** An archive stands in the place of the directory it was packed from. */
  parent(): string | undefined {
    const { parent } = this.#contents;
    return parent === undefined ? undefined : path.resolve(this.path, parent);
  }

  /** As it was written. */
  get parentLink(): string | undefined {
    return this.#contents.parent;
  }

  size(name: string): number | undefined {
    return this.#contents.files.get(name)?.size;
  }

  read(name: string, limit: number): Uint8Array | undefined {
    const file = this.#contents.files.get(name);
    if (file === undefined) return undefined;
    if (file.size > limit)
      throw new ImageError(this.display(name), `is ${file.size} bytes long, more than the ${limit} allowed`);
    const bytes = Buffer.allocUnsafeSlow(file.size);
    let done = 0;
    for (const part of this.checked(file)) {
      bytes.set(part, done);
      done += part.length;
    }
    return bytes;
  }

  /** The contents of a file, frame by frame, each compared with its checksum; a part is good until the next is asked for. */
  *checked(file: ArchivedFile): Generator<Uint8Array> {
    const header = new Uint8Array(FRAME_HEADER_BYTES);
    for (const { at, length, frame } of file.pieces(0, file.size)) {
      const part = this.#buffer.subarray(0, length);
      readFully(this.path, this.#fd, header, frame);
      readFully(this.path, this.#fd, part, at);
      const digest = startDigest(this.#header.id, header).update(part).digest();
      if (!timingSafeEqual(digest, digestIn(header)))
        throw new ImageError(this.display(file.name), 'its contents have changed', { offset: at });
      yield part;
    }
  }

  /** Compare everything with its checksum. @throws ImageError with the first difference */
  verify(beat?: () => void): void {
    for (const file of this.#contents.files.values()) for (const _ of this.checked(file)) beat?.();
  }

  readAt(name: string, into: Uint8Array, position: number): number {
    const file = this.#contents.files.get(name);
    if (file === undefined || position >= file.size) return 0;
    let done = 0;
    for (const { at, length } of file.pieces(position, Math.min(into.length, file.size - position))) {
      readFully(this.path, this.#fd, into.subarray(done, done + length), at);
      done += length;
    }
    return done;
  }

  /** A copy without a name: the archive's own bytes are among others'. */
  open(name: string): number | undefined {
    const file = this.#contents.files.get(name);
    if (file === undefined) return undefined;
    const fd = unnamedFile(tmpdir());
    try {
      for (const part of this.checked(file)) writeAll(fd, part);
      return fd;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  openPages(name: string): number | undefined {
    if (!this.#contents.files.has(name)) return undefined;
    return openSync(`/proc/self/fd/${this.#fd}`, constants.O_RDONLY);
  }

  place(name: string, offset: number, length: number): Iterable<Place> {
    return this.#contents.files.get(name)?.pieces(offset, length) ?? [];
  }

  /** All files in the order in which they were begun. */
  get files(): Iterable<ArchivedFile> {
    return this.#contents.files.values();
  }

  [Symbol.dispose](): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    closeSync(this.#fd);
  }
}

/** A file that has no name anywhere, and is gone with its last descriptor (open(2), O_TMPFILE). */
export function unnamedFile(directory: string): number {
  return openSync(directory, O_TMPFILE | constants.O_RDWR, 0o600);
}

/** From header to header; the payloads of DATA are not read. */
function scan(file: string, fd: number): { header: ArchiveHeader; contents: ArchiveContents } {
  const { size } = fstatSync(fd);
  const bytes = new Uint8Array(FRAME_HEADER_BYTES);
  readFully(file, fd, bytes.subarray(0, HEADER_BYTES), 0);
  const header = decodeHeader(bytes, file);
  const contents = new ArchiveContents(file);
  for (let at = HEADER_BYTES; at < size; ) {
    readFully(file, fd, bytes, at);
    const frame = decodeFrame(bytes, file, at);
    const place = at + FRAME_HEADER_BYTES;
    if (place + frame.length > size) throw brokenOff(file, at);
    const payload = frame.type === FRAME.DATA ? undefined : readControl(file, fd, header, bytes, frame, at);
    contents.add(frame, at, place, payload);
    at = place + frame.length;
  }
  if (contents.endAt === undefined) throw brokenOff(file, size);
  return { header, contents };
}

function readControl(
  file: string,
  fd: number,
  { id }: ArchiveHeader,
  header: Uint8Array,
  { length }: FrameHeader,
  at: number,
): Uint8Array {
  const payload = new Uint8Array(Math.min(length, CONTROL_BYTES_MAX));
  readFully(file, fd, payload, at + FRAME_HEADER_BYTES);
  const digest = startDigest(id, header).update(payload).digest();
  if (!timingSafeEqual(digest, digestIn(header)))
    throw new ImageError(file, 'is damaged: a frame does not have the checksum it says', { offset: at });
  return payload;
}

function brokenOff(file: string, offset: number): ImageError {
  return new ImageError(file, 'breaks off: the end of the image is missing', { offset });
}

function readFully(file: string, fd: number, into: Uint8Array, position: number): void {
  for (let done = 0; done < into.length; ) {
    const count = readSync(fd, into, done, into.length - done, position + done);
    if (count === 0) throw brokenOff(file, position + done);
    done += count;
  }
}
