import { createHash, timingSafeEqual } from 'node:crypto';
import { ImageError } from '../errors.js';

/*
 * An image as one run of bytes: what `checkpoint -o -` sends and `-o FILE.stasis` keeps. Little endian.
 *
 *   header  magic 8, version u32, flags u32, id 16, SHA-256 of these 32 bytes
 *   frame   magic u32, type u16, zero u16, number u32, file u32, length u32, zero u32, offset u64,
 *           SHA-256 of id, these 32 bytes and the payload; then the payload
 *
 * FILE begins a file of the image (payload: its name), DATA appends to it at `offset`, CLOSE says how long it has become;
 * several may be open at once, so that pages go out while the pagemap that describes them is being made, and nothing of
 * it has to be kept. LINK is the link `parent`. END says that all is there: without it there is no image. GONE follows
 * on a stream when its source will not run again; an archive ends with END.
 *
 * The id is random, and part of every digest with the frame's number: a frame of another stream, or at another place,
 * is as wrong as a changed byte. There is no index: frames are found by going from header to header, which for a
 * gibibyte are a thousand short reads.
 */
const ARCHIVE_VERSION = 1;
const MAGIC = Uint8Array.of(0x89, 0x53, 0x54, 0x41, 0x53, 0x49, 0x53, 0x0a);
const FRAME_MAGIC = 0x4d46_5453;

export const HEADER_BYTES = 64;
export const FRAME_HEADER_BYTES = 64;
const DIGESTED_BYTES = 32;
const ID_BYTES = 16;

/** The other end has to report, and be told, before anybody runs; see engine/stream.ts. */
export const FLAG_ANSWERS = 1;
const FLAGS_KNOWN = FLAG_ANSWERS;

export const FRAME = { FILE: 1, DATA: 2, CLOSE: 3, LINK: 4, END: 5, GONE: 6 } as const;
export type FrameType = (typeof FRAME)[keyof typeof FRAME];

/** Longest payload of a DATA frame, and of all others. */
export const DATA_BYTES_MAX = 1024 * 1024;
export const CONTROL_BYTES_MAX = 4096;
/** Files of one image. */
export const FILES_MAX = 2 ** 20;
const END_BYTES = 16;

export interface ArchiveHeader {
  readonly flags: number;
  readonly id: Uint8Array;
}

export interface FrameHeader {
  readonly type: FrameType;
  readonly number: number;
  readonly file: number;
  readonly length: number;
  readonly offset: number;
}

export function encodeHeader({ flags, id }: ArchiveHeader): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(MAGIC);
  view.setUint32(8, ARCHIVE_VERSION, true);
  view.setUint32(12, flags, true);
  bytes.set(id, 16);
  bytes.set(createHash('sha256').update(bytes.subarray(0, DIGESTED_BYTES)).digest(), DIGESTED_BYTES);
  return bytes;
}

/** Does a file begin as an archive does? */
function looksLikeArchive(bytes: Uint8Array): boolean {
  return bytes.length >= MAGIC.length && MAGIC.every((byte, index) => bytes[index] === byte);
}

/** @throws ImageError for what is no archive, one of another version, and a damaged one */
export function decodeHeader(bytes: Uint8Array, name: string): ArchiveHeader {
  if (!looksLikeArchive(bytes))
    throw new ImageError(name, 'is no archive or stream of Stasis', { offset: 0 });
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const version = view.getUint32(8, true);
  // The version first: another one's header may be laid out, or digested, in another way.
  if (version !== ARCHIVE_VERSION)
    throw new ImageError(
      name,
      `has version ${version} of the archive format; this is version ${ARCHIVE_VERSION}`,
      {
        offset: 8,
      },
    );
  const digest = createHash('sha256').update(bytes.subarray(0, DIGESTED_BYTES)).digest();
  if (!timingSafeEqual(digest, bytes.subarray(DIGESTED_BYTES, HEADER_BYTES)))
    throw new ImageError(name, 'the header is damaged', { offset: 0 });
  const flags = view.getUint32(12, true);
  if ((flags & ~FLAGS_KNOWN) !== 0)
    throw new ImageError(name, `has flags 0x${flags.toString(16)}, some of which are not known here`, {
      offset: 12,
    });
  return { flags, id: bytes.slice(16, 16 + ID_BYTES) };
}

/** The digest of a frame; fed with its payload piece by piece. */
export function startDigest(id: Uint8Array, header: Uint8Array) {
  return createHash('sha256').update(id).update(header.subarray(0, DIGESTED_BYTES));
}

export function encodeFrame(id: Uint8Array, frame: FrameHeader, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(FRAME_HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, FRAME_MAGIC, true);
  view.setUint16(4, frame.type, true);
  view.setUint32(8, frame.number, true);
  view.setUint32(12, frame.file, true);
  view.setUint32(16, frame.length, true);
  view.setBigUint64(24, BigInt(frame.offset), true);
  bytes.set(startDigest(id, bytes).update(payload).digest(), DIGESTED_BYTES);
  return bytes;
}

function isFrameType(type: number): type is FrameType {
  return type >= FRAME.FILE && type <= FRAME.GONE;
}

/** `at` is where it lies, for messages. The digest is the caller's to check. @throws ImageError */
export function decodeFrame(bytes: Uint8Array, name: string, at: number): FrameHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, FRAME_HEADER_BYTES);
  const wrong = (message: string) => new ImageError(name, message, { offset: at });
  if (view.getUint32(0, true) !== FRAME_MAGIC) throw wrong('is damaged: no frame begins here');
  const type = view.getUint16(4, true);
  if (!isFrameType(type)) throw wrong(`is damaged: frames of type ${type} are not known`);
  if (view.getUint16(6, true) !== 0 || view.getUint32(20, true) !== 0)
    throw wrong('is damaged: what must be zero is not');
  const length = view.getUint32(16, true);
  if (length > (type === FRAME.DATA ? DATA_BYTES_MAX : CONTROL_BYTES_MAX))
    throw wrong(`is damaged: a frame of type ${type} is not ${length} bytes long`);
  const offset = view.getBigUint64(24, true);
  if (offset > BigInt(Number.MAX_SAFE_INTEGER)) throw wrong('is damaged: an offset beyond any file');
  return {
    type,
    number: view.getUint32(8, true),
    file: view.getUint32(12, true),
    length,
    offset: Number(offset),
  };
}

export function digestIn(header: Uint8Array): Uint8Array {
  return header.subarray(DIGESTED_BYTES, FRAME_HEADER_BYTES);
}

/** What END says: the number of files (with the link), and their bytes. */
export function encodeEnd(files: number, bytes: number): Uint8Array {
  const payload = new Uint8Array(END_BYTES);
  const view = new DataView(payload.buffer);
  view.setUint32(0, files, true);
  view.setBigUint64(8, BigInt(bytes), true);
  return payload;
}

export function decodeEnd(
  payload: Uint8Array,
): { readonly files: number; readonly bytes: bigint } | undefined {
  if (payload.length !== END_BYTES) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, END_BYTES);
  return { files: view.getUint32(0, true), bytes: view.getBigUint64(8, true) };
}
