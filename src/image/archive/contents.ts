import { IMAGE_FILE_NAME } from '../directory.js';
import { ImageError } from '../errors.js';
import { CONTROL_BYTES_MAX, decodeEnd, FILES_MAX, FRAME, type FrameHeader } from './format.js';

/** Where one file's bytes are in an archive: pieces in columns, for there can be millions. */
export class ArchivedFile {
  readonly name: string;
  size = 0;
  isClosed = false;
  readonly #starts: number[] = [];
  readonly #places: number[] = [];
  readonly #frames: number[] = [];

  constructor(name: string) {
    this.name = name;
  }

  /** `frame` is where the header lies, the bytes come behind it. */
  append(frame: number, place: number, length: number): void {
    this.#starts.push(this.size);
    this.#frames.push(frame);
    this.#places.push(place);
    this.size += length;
  }

  /** The pieces of a range, in order; it must lie within the file. */
  *pieces(offset: number, length: number): Generator<Piece> {
    const end = offset + length;
    for (let index = this.#find(offset); index < this.#starts.length; index++) {
      const start = this.#starts[index] ?? 0;
      if (start >= end) return;
      const from = Math.max(offset, start);
      const to = Math.min(end, this.#starts[index + 1] ?? this.size);
      yield {
        at: (this.#places[index] ?? 0) + from - start,
        length: to - from,
        frame: this.#frames[index] ?? 0,
      };
    }
  }

  /** The last piece that begins at or before an offset. */
  #find(offset: number): number {
    let low = 0;
    let high = this.#starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#starts[middle] ?? 0) <= offset) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low - 1);
  }
}

export interface Piece {
  /** In the archive. */
  readonly at: number;
  readonly length: number;
  /** The header of the frame it is in. */
  readonly frame: number;
}

/** What frames add up to. Every frame is judged as it comes, whoever sent it. */
export class ArchiveContents {
  readonly files = new Map<string, ArchivedFile>();
  /** Where the link `parent` leads. */
  parent: string | undefined;
  /** The header of END; undefined before it. */
  endAt: number | undefined;
  /** The source has said that it will not run again. */
  isGone = false;
  readonly #name: string;
  readonly #open = new Map<number, ArchivedFile>();
  #count = 0;
  #bytes = 0;
  #number = 0;

  constructor(name: string) {
    this.#name = name;
  }

  /** Frames so far. */
  get frames(): number {
    return this.#number;
  }

  /** `at` is where the frame begins, `place` where its payload does; `payload` is undefined for DATA. @throws ImageError */
  add(frame: FrameHeader, at: number, place: number, payload: Uint8Array | undefined): void {
    if (this.endAt !== undefined) {
      this.#afterEnd(frame, at);
      return;
    }
    if (frame.number !== this.#number)
      throw this.#wrong(at, `frame ${frame.number} is where frame ${this.#number} should be`);
    this.#number++;
    switch (frame.type) {
      case FRAME.FILE:
        this.#begin(frame, at, payload ?? new Uint8Array());
        return;
      case FRAME.DATA:
        this.#data(frame, at, place);
        return;
      case FRAME.CLOSE:
        this.#close(frame, at);
        return;
      case FRAME.LINK:
        this.#link(frame, at, payload ?? new Uint8Array());
        return;
      case FRAME.END:
        this.#end(at, payload ?? new Uint8Array());
        return;
      case FRAME.GONE:
        throw this.#wrong(at, 'the source is said to be gone before the image has ended');
      default:
        frame.type satisfies never;
    }
  }

  /** A guardian that finishes for somebody who died may say again what was said already. */
  #afterEnd(frame: FrameHeader, at: number): void {
    const isEnd = frame.type === FRAME.END && frame.number === this.#number - 1 && !this.isGone;
    if (isEnd) return;
    if (frame.type !== FRAME.GONE || frame.number !== this.#number || frame.length !== 0)
      throw this.#wrong(at, 'something follows behind the end of the image');
    this.isGone = true;
  }

  #begin({ file, offset }: FrameHeader, at: number, payload: Uint8Array): void {
    if (offset !== 0 || file !== this.#count) throw this.#wrong(at, `file ${file} begins out of turn`);
    if (this.#count >= FILES_MAX) throw this.#wrong(at, `there are more than ${FILES_MAX} files`);
    const name = Buffer.from(payload).toString('latin1');
    if (!IMAGE_FILE_NAME.test(name) || name === 'parent')
      throw this.#wrong(at, `${JSON.stringify(name.slice(0, 80))} is no name of an image file`);
    if (this.files.has(name)) throw this.#wrong(at, `${name} is there twice`);
    const archived = new ArchivedFile(name);
    this.files.set(name, archived);
    this.#open.set(file, archived);
    this.#count++;
  }

  #data({ file, offset, length }: FrameHeader, at: number, place: number): void {
    const archived = this.#openFile(file, at);
    if (length === 0 || offset !== archived.size)
      throw this.#wrong(at, `${archived.name} goes on at ${offset} instead of ${archived.size}`);
    archived.append(at, place, length);
    this.#bytes += length;
  }

  #close({ file, offset, length }: FrameHeader, at: number): void {
    const archived = this.#openFile(file, at);
    if (length !== 0 || offset !== archived.size)
      throw this.#wrong(at, `${archived.name} is ${offset} bytes long, ${archived.size} came`);
    archived.isClosed = true;
    this.#open.delete(file);
  }

  #link({ file, offset }: FrameHeader, at: number, payload: Uint8Array): void {
    const target = Buffer.from(payload).toString('utf8');
    const isLink = file === 0 && offset === 0 && target !== '' && target.length < CONTROL_BYTES_MAX;
    if (!isLink || target.includes('\0') || this.parent !== undefined)
      throw this.#wrong(at, 'the link to the parent is wrong, or there twice');
    this.parent = target;
  }

  #end(at: number, payload: Uint8Array): void {
    const end = decodeEnd(payload);
    if (this.#open.size > 0) throw this.#wrong(at, 'the image ends in the middle of a file');
    if (end === undefined || end.files !== this.#count || end.bytes !== BigInt(this.#bytes))
      throw this.#wrong(at, 'the image does not have the files and bytes that its end says');
    this.endAt = at;
  }

  #openFile(file: number, at: number): ArchivedFile {
    const archived = this.#open.get(file);
    if (archived === undefined) throw this.#wrong(at, `file ${file} is not open`);
    return archived;
  }

  #wrong(at: number, message: string): ImageError {
    return new ImageError(this.#name, `is damaged: ${message}`, { offset: at });
  }
}
