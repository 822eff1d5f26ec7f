import { type Hash, timingSafeEqual } from 'node:crypto';
import { ImageError } from '../errors.js';
import { ArchiveContents } from './contents.js';
import {
  type ArchiveHeader,
  CONTROL_BYTES_MAX,
  decodeFrame,
  decodeHeader,
  digestIn,
  FRAME,
  FRAME_HEADER_BYTES,
  type FrameHeader,
  HEADER_BYTES,
  startDigest,
} from './format.js';

/** Takes the bytes of a stream as they come, in pieces of any length, and keeps none but a frame's header. */
export class ArchiveDecoder {
  readonly contents: ArchiveContents;
  #header: ArchiveHeader | undefined;
  readonly #name: string;
  readonly #bytes = new Uint8Array(Math.max(HEADER_BYTES, FRAME_HEADER_BYTES));
  #have = 0;
  readonly #control = new Uint8Array(CONTROL_BYTES_MAX);
  #frame:
    | { readonly header: FrameHeader; readonly at: number; readonly digest: Hash; left: number }
    | undefined;
  #at = 0;

  /** `name` is what messages call the stream. */
  constructor(name: string) {
    this.#name = name;
    this.contents = new ArchiveContents(name);
  }

  /** Undefined before it has come. */
  get header(): ArchiveHeader | undefined {
    return this.#header;
  }

  /** Bytes taken so far. */
  get position(): number {
    return this.#at;
  }

  get isEnded(): boolean {
    return this.contents.endAt !== undefined;
  }

  /** @throws ImageError, with the offset of the frame, for whatever is wrong */
  push(bytes: Uint8Array): void {
    for (let from = 0; from < bytes.length; )
      from += this.#frame === undefined ? this.#pushHeader(bytes, from) : this.#pushPayload(bytes, from);
  }

  /** There will be no more. @throws ImageError when that is too soon */
  end(): void {
    if (this.#frame === undefined && this.#have === 0 && this.isEnded) return;
    throw new ImageError(this.#name, 'breaks off: the end of the image is missing', { offset: this.#at });
  }

  #pushHeader(bytes: Uint8Array, from: number): number {
    const size = this.#header === undefined ? HEADER_BYTES : FRAME_HEADER_BYTES;
    const length = Math.min(size - this.#have, bytes.length - from);
    this.#bytes.set(bytes.subarray(from, from + length), this.#have);
    this.#have += length;
    this.#at += length;
    if (this.#have === size) this.#takeHeader(size);
    return length;
  }

  #takeHeader(size: number): void {
    this.#have = 0;
    if (this.#header === undefined) {
      this.#header = decodeHeader(this.#bytes.subarray(0, HEADER_BYTES), this.#name);
      return;
    }
    const at = this.#at - size;
    const header = decodeFrame(this.#bytes, this.#name, at);
    this.#frame = { header, at, digest: startDigest(this.#header.id, this.#bytes), left: header.length };
    if (header.length === 0) this.#finish();
  }

  #pushPayload(bytes: Uint8Array, from: number): number {
    const frame = this.#frame;
    if (frame === undefined) return 0;
    const part = bytes.subarray(from, from + Math.min(frame.left, bytes.length - from));
    frame.digest.update(part);
    if (frame.header.type !== FRAME.DATA) this.#control.set(part, frame.header.length - frame.left);
    frame.left -= part.length;
    this.#at += part.length;
    if (frame.left === 0) this.#finish();
    return part.length;
  }

  #finish(): void {
    const frame = this.#frame;
    if (frame === undefined) return;
    this.#frame = undefined;
    const { header, at, digest } = frame;
    if (!timingSafeEqual(digest.digest(), digestIn(this.#bytes)))
      throw new ImageError(this.#name, 'is damaged: a frame does not have the checksum it says', {
        offset: at,
      });
    const payload = header.type === FRAME.DATA ? undefined : this.#control.slice(0, header.length);
    this.contents.add(header, at, at + FRAME_HEADER_BYTES, payload);
  }
}
