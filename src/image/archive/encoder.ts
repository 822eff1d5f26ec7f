import { randomBytes } from 'node:crypto';
import { ImageError } from '../errors.js';
import type { ImageFile } from '../target.js';
import {
  DATA_BYTES_MAX,
  encodeEnd,
  encodeFrame,
  encodeHeader,
  FRAME,
  FRAME_HEADER_BYTES,
  type FrameType,
} from './format.js';

const NOTHING = new Uint8Array();
/** Small frames go out together. */
const SMALL_BYTES = 64 * 1024;

/** Makes the frames of an archive. `write` gets bytes that are its own until it returns. */
export class ArchiveEncoder {
  readonly #write: (bytes: Uint8Array) => void;
  readonly #id = randomBytes(16);
  /** A frame's header and its payload, or several small frames. */
  readonly #buffer = Buffer.allocUnsafeSlow(FRAME_HEADER_BYTES + DATA_BYTES_MAX + SMALL_BYTES);
  #filled = 0;
  #number = 0;
  #files = 0;
  #bytes = 0;

  constructor(write: (bytes: Uint8Array) => void, flags = 0) {
    this.#write = write;
    this.#put(encodeHeader({ flags, id: this.#id }));
  }

  /** A new file; `name` is the caller's to check. */
  file(name: string): ArchiveFile {
    const number = this.#files++;
    this.#frame(FRAME.FILE, number, 0, Buffer.from(name, 'latin1'));
    return new ArchiveFile(
      name,
      (bytes, offset) => this.#data(number, offset, bytes),
      (size) => {
        this.#frame(FRAME.CLOSE, number, size, NOTHING);
      },
    );
  }

  link(target: string): void {
    this.#frame(FRAME.LINK, 0, 0, Buffer.from(target));
  }

  /** Everything so far goes out; answers the frames that say that it is all, and that the source will not run again. */
  finish(): { readonly end: Uint8Array; readonly gone: Uint8Array } {
    this.flush();
    const payload = encodeEnd(this.#files, this.#bytes);
    const end = Buffer.concat([this.#header(FRAME.END, 0, 0, payload), payload]);
    return { end, gone: this.#header(FRAME.GONE, 0, 0, NOTHING) };
  }

  flush(): void {
    if (this.#filled === 0) return;
    const bytes = this.#buffer.subarray(0, this.#filled);
    this.#filled = 0;
    this.#write(bytes);
  }

  #data(file: number, offset: number, bytes: Uint8Array): void {
    this.#bytes += bytes.length;
    this.#frame(FRAME.DATA, file, offset, bytes);
  }

  #header(type: FrameType, file: number, offset: number, payload: Uint8Array): Uint8Array {
    const frame = { type, number: this.#number++, file, length: payload.length, offset };
    return encodeFrame(this.#id, frame, payload);
  }

  #frame(type: FrameType, file: number, offset: number, payload: Uint8Array): void {
    this.#put(this.#header(type, file, offset, payload));
    this.#put(payload);
    if (this.#filled >= SMALL_BYTES) this.flush();
  }

  #put(bytes: Uint8Array): void {
    if (this.#filled + bytes.length > this.#buffer.length) this.flush();
    this.#buffer.set(bytes, this.#filled);
    this.#filled += bytes.length;
  }
}

/** Buffers of files that are closed, for the next ones: an image has hundreds of small files, and few at a time. */
const spare: Buffer[] = [];

/** One file on its way out. Short writes are gathered: pages come in runs that may be one page each. */
export class ArchiveFile implements ImageFile {
  readonly name: string;
  readonly #send: (bytes: Uint8Array, offset: number) => void;
  readonly #end: (size: number) => void;
  #buffer: Buffer | undefined;
  #filled = 0;
  #sent = 0;
  #isOpen = true;

  constructor(name: string, send: (bytes: Uint8Array, offset: number) => void, end: (size: number) => void) {
    this.name = name;
    this.#send = send;
    this.#end = end;
  }

  get bytes(): number {
    return this.#sent + this.#filled;
  }

  write(bytes: Uint8Array): void {
    if (!this.#isOpen) throw new ImageError(this.name, 'was closed already');
    for (let from = 0; from < bytes.length; ) from += this.#take(bytes.subarray(from));
  }

  #take(bytes: Uint8Array): number {
    if (this.#filled === 0 && bytes.length >= DATA_BYTES_MAX) {
      this.#sendOn(bytes.subarray(0, DATA_BYTES_MAX));
      return DATA_BYTES_MAX;
    }
    this.#buffer ??= spare.pop() ?? Buffer.allocUnsafeSlow(DATA_BYTES_MAX);
    const length = Math.min(bytes.length, DATA_BYTES_MAX - this.#filled);
    this.#buffer.set(bytes.subarray(0, length), this.#filled);
    this.#filled += length;
    if (this.#filled === DATA_BYTES_MAX) this.#flush();
    return length;
  }

  #flush(): void {
    if (this.#buffer === undefined || this.#filled === 0) return;
    const filled = this.#buffer.subarray(0, this.#filled);
    this.#filled = 0;
    this.#sendOn(filled);
  }

  #sendOn(bytes: Uint8Array): void {
    this.#send(bytes, this.#sent);
    this.#sent += bytes.length;
  }

  close(): void {
    if (!this.#isOpen) return;
    this.#flush();
    this.#isOpen = false;
    if (this.#buffer !== undefined) spare.push(this.#buffer);
    this.#buffer = undefined;
    this.#end(this.#sent);
  }
}
