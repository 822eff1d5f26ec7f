import { create, type DescMessage, fromBinary, type MessageShape, toBinary } from '@bufbuild/protobuf';
import { decodeMessage } from './decode.js';
import { ImageError, reason } from './errors.js';
import {
  type ImageKind,
  KINDS,
  type KindName,
  kindOf,
  type MessageOf,
  type NestedOf,
  type RawLayout,
} from './kinds.js';
import { IMG_COMMON_MAGIC, IMG_SERVICE_MAGIC } from './magic.js';
import { missingField } from './required.js';
import { withNames } from './text.js';

/*
 * A file: its magic words, then records: u32 length, message, and for some kinds raw bytes that the message
 * measures. What is read is hostile: every length is checked against what is left of the file before anything is
 * taken, so memory stays within a multiple of the file's size, and that is limited by the reader.
 */

/** The longest message accepted: an mm with a million mappings is about 60 MiB. */
export const RECORD_BYTES_MAX = 64 * 1024 * 1024;

/** A record, the raw bytes after it, and the nested records each of those follows, where the kind has them. */
export interface ImageRecord<K extends KindName> {
  readonly message: MessageOf<K>;
  readonly raw: readonly Uint8Array[];
  readonly nested: readonly NestedOf<K>[];
}

/** A record to write. Without raw bytes and nested records both can be left out. */
export interface RecordInput<K extends KindName> {
  readonly message: MessageOf<K>;
  readonly raw?: readonly Uint8Array[];
  readonly nested?: readonly NestedOf<K>[];
}

export interface AnyRecord {
  readonly message: MessageShape<DescMessage>;
  readonly raw: readonly Uint8Array[];
  readonly nested: readonly MessageShape<DescMessage>[];
}

/** A little-endian view over a file's bytes that cannot be read past its end. */
export class ImageCursor {
  offset: number;
  readonly file: string;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  constructor(file: string, bytes: Uint8Array, offset = 0) {
    this.file = file;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.offset = offset;
  }

  get left(): number {
    return this.#bytes.length - this.offset;
  }

  u32(what: string): number {
    if (this.left < 4) throw this.error(`${what} is cut short`);
    const value = this.#view.getUint32(this.offset, true);
    this.offset += 4;
    return value;
  }

  /** Passes over the next bytes, and says where they begin. */
  skip(length: number | bigint, what: string): number {
    if (length < 0 || length > this.left) {
      throw this.error(`${what} of ${length} bytes is cut short: ${this.left} are left`);
    }
    const from = this.offset;
    this.offset += Number(length);
    return from;
  }

  /** The next bytes, as a view of the file's. */
  take(length: number | bigint, what: string): Uint8Array {
    return this.#bytes.subarray(this.skip(length, what), this.offset);
  }

  error(message: string, cause?: unknown): ImageError {
    return new ImageError(this.file, message, { offset: this.offset, cause });
  }
}

/** Checks the words a file begins with, and leaves the cursor at the first record. */
export function readMagic(cursor: ImageCursor, kind: { magic: number; group?: 'service' | 'none' }): void {
  if (kind.group !== 'none') {
    const group = kind.group === 'service' ? IMG_SERVICE_MAGIC : IMG_COMMON_MAGIC;
    const found = cursor.u32('the magic');
    // Version 1 of the format had no group word.
    if (found === kind.magic) return;
    if (found !== group) throw cursor.error(`not an image: it begins with 0x${found.toString(16)}`);
  }
  const magic = cursor.u32('the magic');
  if (magic !== kind.magic) {
    throw cursor.error(
      `another kind of image: its magic is 0x${magic.toString(16)}, not 0x${kind.magic.toString(16)}`,
    );
  }
}

/** One message with its length before it. */
export function readMessage<S extends DescMessage>(cursor: ImageCursor, schema: S): MessageShape<S> {
  const start = cursor.offset;
  const length = cursor.u32('a record’s length');
  if (length > RECORD_BYTES_MAX)
    throw new ImageError(cursor.file, `a record of ${length} bytes`, { offset: start });
  const bytes = cursor.take(length, `a ${schema.typeName}`);
  const decoded = decodeMessage(schema, bytes);
  if (decoded !== undefined) return decoded;
  try {
    const message = fromBinary(schema, bytes);
    const missing = missingField(schema, message);
    if (missing === undefined) return message;
    throw new ImageError(cursor.file, `a ${schema.typeName} lacks ${missing}`, { offset: start });
  } catch (error) {
    if (error instanceof ImageError) throw error;
    const message = `not a ${schema.typeName}: ${reason(error)}`;
    throw new ImageError(cursor.file, message, { offset: start, cause: error });
  }
}

function takeRaw(cursor: ImageCursor, length: number | bigint, pad: number): Uint8Array {
  const bytes = cursor.take(length, 'the data after a record');
  cursor.take((pad - (bytes.length % pad)) % pad, 'the padding after a record’s data');
  return bytes;
}

function readRaw(cursor: ImageCursor, kind: ImageKind, layout: RawLayout): Omit<AnyRecord, 'message'> {
  const pad = layout.pad ?? 1;
  if (layout.rest) return { raw: [cursor.take(cursor.left, 'the data')], nested: [] };
  const raw = (layout.lengths ?? []).map((length) => takeRaw(cursor, length, pad));
  const nested: MessageShape<DescMessage>[] = [];
  const count = layout.nested ?? 0;
  while (kind.nested !== undefined && nested.length < count && (cursor.left > 0 || Number.isFinite(count))) {
    const message = readMessage(cursor, kind.nested.schema);
    nested.push(message);
    raw.push(takeRaw(cursor, kind.nested.length(message), pad));
  }
  return { raw, nested };
}

/** As `decodeImage`, for code that works on every kind. */
export function decodeAny(name: KindName, bytes: Uint8Array, file: string): AnyRecord[] {
  const kind = kindOf(name);
  const cursor = new ImageCursor(file, bytes);
  readMagic(cursor, kind);
  return withNames(() => {
    const records: AnyRecord[] = [];
    while (cursor.left > 0) {
      const message = readMessage(cursor, kind.schema);
      const after =
        kind.raw === undefined ? { raw: [], nested: [] } : readRaw(cursor, kind, kind.raw(message));
      records.push({ message, ...after });
    }
    return records;
  });
}

/** The records of a file's bytes; `file` is for the errors. Raw parts are views of `bytes`. @throws ImageError */
export function decodeImage<K extends KindName>(name: K, bytes: Uint8Array, file: string): ImageRecord<K>[] {
  return decodeAny(name, bytes, file) as unknown as ImageRecord<K>[];
}

/** The first message of a file, of which `bytes` is the beginning, and the offset behind it. @throws ImageError */
export function decodeHead<K extends KindName>(
  name: K,
  bytes: Uint8Array,
  file: string,
): { message: MessageOf<K>; offset: number } {
  const kind = kindOf(name);
  const cursor = new ImageCursor(file, bytes);
  readMagic(cursor, kind);
  const message = withNames(() => readMessage(cursor, kind.schema)) as MessageOf<K>;
  return { message, offset: cursor.offset };
}

function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

/** The words a file of this kind begins with. */
export function encodeMagic(kind: { magic: number; group?: 'service' | 'none' }): Uint8Array[] {
  if (kind.group === 'none') return [u32(kind.magic)];
  return [u32(kind.group === 'service' ? IMG_SERVICE_MAGIC : IMG_COMMON_MAGIC), u32(kind.magic)];
}

function pushMessage(parts: Uint8Array[], schema: DescMessage, message: MessageShape<DescMessage>): void {
  const bytes = toBinary(schema, message);
  if (bytes.length > RECORD_BYTES_MAX) throw new RangeError(`a ${schema.typeName} of ${bytes.length} bytes`);
  parts.push(u32(bytes.length), bytes);
}

function pushRaw(
  parts: Uint8Array[],
  bytes: Uint8Array | undefined,
  length: number | bigint,
  pad: number,
): void {
  if (bytes === undefined || BigInt(bytes.length) !== BigInt(length)) {
    throw new RangeError(`${bytes?.length ?? 'no'} bytes of data after a record that says ${length}`);
  }
  parts.push(bytes);
  if (bytes.length % pad !== 0) parts.push(new Uint8Array(pad - (bytes.length % pad)));
}

function pushAfter(parts: Uint8Array[], kind: ImageKind, layout: RawLayout, record: AnyRecord): void {
  const { raw, nested } = record;
  const pad = layout.pad ?? 1;
  if (layout.rest) {
    parts.push(...raw);
    return;
  }
  const lengths = layout.lengths ?? [];
  lengths.forEach((length, index) => {
    pushRaw(parts, raw[index], length, pad);
  });
  const count = layout.nested ?? 0;
  if (raw.length !== lengths.length + nested.length || (Number.isFinite(count) && nested.length !== count)) {
    throw new RangeError(
      `${raw.length} parts of data and ${nested.length} nested records do not fit the record`,
    );
  }
  const rule = kind.nested;
  if (rule === undefined) return;
  nested.forEach((message, index) => {
    pushMessage(parts, rule.schema, message);
    pushRaw(parts, raw[lengths.length + index], rule.length(message), pad);
  });
}

function encodeParts(name: KindName, records: readonly AnyRecord[]): Uint8Array[] {
  const kind = kindOf(name);
  const parts = encodeMagic(kind);
  for (const record of records) {
    pushMessage(parts, kind.schema, record.message);
    const layout: RawLayout = kind.raw?.(record.message) ?? {};
    pushAfter(parts, kind, layout, record);
  }
  return parts;
}

/**
 * The bytes of a file. A message that lacks a required field, or data that is not as long as the message says, is a
 * mistake of the caller's and reported as an ImageError all the same, so that a dump names the file.
 */
export function encodeImage<K extends KindName>(name: K, records: readonly RecordInput<K>[]): Uint8Array {
  return Buffer.concat(encodeImageParts(name, records));
}

/** As `encodeImage`, in parts; raw data is among them, and not copied. */
export function encodeImageParts<K extends KindName>(
  name: K,
  records: readonly RecordInput<K>[],
): readonly Uint8Array[] {
  const filled = records.map((record) => ({ raw: [], nested: [], ...record })) as unknown as AnyRecord[];
  try {
    return withNames(() => encodeParts(name, filled));
  } catch (error) {
    throw new ImageError(name, `cannot be written: ${reason(error)}`, { cause: error });
  }
}

/** An empty message of a kind, to be filled: `createMessage('pstree', { pid: 1, … })`. */
export function createMessage<K extends KindName>(
  name: K,
  init?: Parameters<typeof create<(typeof KINDS)[K]['schema']>>[1],
): MessageOf<K> {
  return create(KINDS[name].schema as (typeof KINDS)[K]['schema'], init) as MessageOf<K>;
}
