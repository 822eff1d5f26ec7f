import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { encodeMagic, ImageCursor, readMagic, readMessage } from './codec.js';
import { ImageError, reason } from './errors.js';
import type { ImageId } from './kinds.js';
import { MAGIC } from './magic.js';
import { pagemap_entrySchema, pagemap_headSchema } from './schema/generated/memory_pb.js';

/*
 * A pagemap says which pages of an address space (or a shared mapping) are in the image: a head naming pages-ID.img,
 * then runs of pages in ascending order. The PRESENT runs' contents are that file, one after the other. A process
 * can have hundreds of thousands of runs, so they have a codec by hand: about ten times as fast as the general one.
 */

export const PAGE_BYTES = 4096;

/** Where a run's contents are: in the parent image, at the lazy page server, in this image's pages file. */
export const PE_PARENT = 1;
export const PE_LAZY = 2;
export const PE_PRESENT = 4;

export interface PagemapEntry {
  readonly vaddr: bigint;
  readonly nrPages: number;
  readonly flags: number;
}

/** Runs of pages, as an array has them. */
export interface PagemapEntries extends Iterable<PagemapEntry> {
  readonly length: number;
  at(index: number): PagemapEntry | undefined;
}

export interface Pagemap {
  /** The path of the file, for messages. */
  readonly file: string;
  readonly pagesId: number;
  readonly entries: PagemapEntries;
  /** Where each entry begins in the file, for messages. */
  readonly positions: ArrayLike<number>;
}

/** What an entry has at least: a length word, and two fields with a tag each. */
const ENTRY_BYTES_MIN = 8;

/** Runs in columns: an object for each would take three times the room. */
class Columns implements PagemapEntries {
  length = 0;
  readonly positions: Uint32Array;
  readonly #vaddrs: BigUint64Array;
  readonly #pages: Float64Array;
  readonly #flags: Uint32Array;

  /** `bytes` is the length of the file; columns that stay untouched take no memory. */
  constructor(bytes: number) {
    const room = Math.ceil(bytes / ENTRY_BYTES_MIN);
    // No file of metadata is so long that these would not do (reader.ts FILE_BYTES_MAX).
    this.positions = new Uint32Array(room);
    this.#vaddrs = new BigUint64Array(room);
    this.#pages = new Float64Array(room);
    this.#flags = new Uint32Array(room);
  }

  push({ vaddr, nrPages, flags }: PagemapEntry, position: number): void {
    this.positions[this.length] = position;
    this.#vaddrs[this.length] = vaddr;
    this.#pages[this.length] = nrPages;
    this.#flags[this.length] = flags;
    this.length++;
  }

  at(index: number): PagemapEntry | undefined {
    if (index < 0 || index >= this.length) return undefined;
    return {
      vaddr: this.#vaddrs[index] ?? 0n,
      nrPages: this.#pages[index] ?? 0,
      flags: this.#flags[index] ?? 0,
    };
  }

  *[Symbol.iterator](): Generator<PagemapEntry> {
    for (let index = 0; index < this.length; index++) {
      const entry = this.at(index);
      if (entry !== undefined) yield entry;
    }
  }
}

const KIND = { magic: MAGIC.PAGEMAP };
/** More than any address space has; keeps byte counts exact in a number. */
const PAGES_MAX = 2 ** 40;
const ADDRESS_END = 2 ** 64;

/** The name of the pagemap of a process, or of a shared mapping by its shmid. */
export function pagemapFile(id: ImageId, options: { shmem?: boolean } = {}): string {
  return `pagemap-${options.shmem ? 'shmem-' : ''}${id}.img`;
}

/** Where the varint read last ended. */
interface Place {
  next: number;
}

/** A varint, or -1 where there is none or it is more than a number holds exactly. */
function readVarint(bytes: Uint8Array, at: number, end: number, place: Place): number {
  let value = 0;
  let scale = 1;
  for (let index = at; index < end; index++) {
    const byte = bytes[index] ?? 0;
    value += (byte & 0x7f) * scale;
    if (value > Number.MAX_SAFE_INTEGER) return -1;
    if (byte < 0x80) {
      place.next = index + 1;
      return value;
    }
    scale *= 128;
  }
  return -1;
}

/** As older and newer writers have it: without flags a run is PRESENT, or PARENT where `in_parent` says so. */
function entryOf(vaddr: bigint, pages: number, flags: number | undefined, in_parent: boolean): PagemapEntry {
  return { vaddr, nrPages: pages, flags: flags ?? (in_parent ? PE_PARENT : PE_PRESENT) };
}

/** Any encoding of an entry, by the general codec. */
function decodeSlow(bytes: Uint8Array): PagemapEntry | undefined {
  const message = fromBinary(pagemap_entrySchema, bytes);
  if (!Object.hasOwn(message, 'vaddr') || !Object.hasOwn(message, 'compatNrPages')) return undefined;
  const pages = Object.hasOwn(message, 'nrPages') ? Number(message.nrPages) : message.compatNrPages;
  const flags = Object.hasOwn(message, 'flags') ? message.flags : undefined;
  return entryOf(message.vaddr, pages, flags, message.inParent);
}

const UINT32_MAX = 0xffff_ffff;
const FIELD_VADDR = 0x08;
const FIELD_COMPAT = 0x10;
const FIELD_IN_PARENT = 0x18;
const FIELD_FLAGS = 0x20;
const FIELD_NR_PAGES = 0x28;

/** An entry whose fields are all known and exact in a number; undefined for anything that needs a closer look. */
function decodeFast(bytes: Uint8Array, from: number, end: number, place: Place): PagemapEntry | undefined {
  let vaddr = -1;
  let compat = -1;
  let pages = -1;
  let flags: number | undefined;
  let in_parent = false;
  place.next = from;
  while (place.next < end) {
    const tag = bytes[place.next];
    const value = readVarint(bytes, place.next + 1, end, place);
    if (value < 0) return undefined;
    if (tag === FIELD_VADDR) vaddr = value;
    else if (tag === FIELD_NR_PAGES) pages = value;
    else if (value > UINT32_MAX) return undefined;
    else if (tag === FIELD_COMPAT) compat = value;
    else if (tag === FIELD_FLAGS) flags = value;
    else if (tag === FIELD_IN_PARENT) in_parent = value !== 0;
    else return undefined;
  }
  if (vaddr < 0 || compat < 0) return undefined;
  return entryOf(BigInt(vaddr), pages < 0 ? compat : pages, flags, in_parent);
}

function decodeEntry(cursor: ImageCursor, bytes: Uint8Array, place: Place): PagemapEntry {
  const start = cursor.offset;
  const length = cursor.u32('a record’s length');
  const from = cursor.skip(length, 'a pagemap_entry');
  const fast = decodeFast(bytes, from, cursor.offset, place);
  if (fast !== undefined) return fast;
  try {
    const slow = decodeSlow(bytes.subarray(from, cursor.offset));
    if (slow !== undefined) return slow;
  } catch (error) {
    const message = `not a pagemap_entry: ${reason(error)}`;
    throw new ImageError(cursor.file, message, { offset: start, cause: error });
  }
  throw new ImageError(cursor.file, 'a pagemap_entry lacks a required field', { offset: start });
}

/** Parses a pagemap's bytes. Order and alignment are `checkPagemap`'s to judge. @throws ImageError */
export function decodePagemap(bytes: Uint8Array, file: string): Pagemap {
  const cursor = new ImageCursor(file, bytes);
  readMagic(cursor, KIND);
  const { pagesId } = readMessage(cursor, pagemap_headSchema);
  const place: Place = { next: 0 };
  const entries = new Columns(cursor.left);
  while (cursor.left > 0) {
    const position = cursor.offset;
    entries.push(decodeEntry(cursor, bytes, place), position);
  }
  return { file, pagesId, entries, positions: entries.positions };
}

/** Length word, five tags, and varints of 10, 1, 1 and 6 bytes. */
const ENTRY_BYTES_MAX = 32;

function writeVarint(bytes: Uint8Array, at: number, value: number): number {
  let rest = value;
  let next = at;
  while (rest >= 0x80) {
    bytes[next++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  bytes[next++] = rest;
  return next;
}

function encodeEntry(bytes: Uint8Array, at: number, entry: PagemapEntry): number {
  let next = at + 4;
  bytes[next++] = FIELD_VADDR;
  // A page's address is a multiple of 4096, so a number holds all 64 bits of it exactly.
  next = writeVarint(bytes, next, Number(entry.vaddr));
  bytes[next++] = FIELD_COMPAT;
  bytes[next++] = 0;
  bytes[next++] = FIELD_FLAGS;
  next = writeVarint(bytes, next, entry.flags);
  bytes[next++] = FIELD_NR_PAGES;
  next = writeVarint(bytes, next, entry.nrPages);
  // The length is below 32, so its other three bytes stay zero.
  bytes[at] = next - at - 4;
  return next;
}

const ENCODER_BYTES = 64 * 1024;

/** Makes a pagemap file run by run, in a buffer of its own that does not grow with it. */
export class PagemapEncoder {
  readonly #write: (bytes: Uint8Array) => void;
  readonly #bytes = new Uint8Array(ENCODER_BYTES);
  #at: number;
  #written = 0;
  #end = 0;
  #pages = 0;

  /** `write` gets the bytes of the file in order; they are its own only until it returns. */
  constructor(pagesId: number, write: (bytes: Uint8Array) => void) {
    this.#write = write;
    const head = toBinary(pagemap_headSchema, { $typeName: 'pagemap_head', pagesId });
    const prefix = Buffer.concat([...encodeMagic(KIND), Uint8Array.of(head.length, 0, 0, 0), head]);
    this.#bytes.set(prefix);
    this.#at = prefix.length;
  }

  /** How many pages the runs have so far. */
  get pages(): number {
    return this.#pages;
  }

  /** Append a run. They must be aligned, ascending and without overlap. @throws ImageError */
  add(entry: PagemapEntry): void {
    const wrong = fault(entry, this.#end);
    if (wrong !== undefined)
      throw new ImageError('pagemap', `cannot be written: ${wrong}`, { offset: this.#written + this.#at });
    this.#end = Number(entry.vaddr) + entry.nrPages * PAGE_BYTES;
    this.#pages += entry.nrPages;
    if (this.#at + ENTRY_BYTES_MAX > ENCODER_BYTES) this.flush();
    this.#at = encodeEntry(this.#bytes, this.#at, entry);
  }

  /** Write what was added. */
  flush(): void {
    this.#write(this.#bytes.subarray(0, this.#at));
    this.#written += this.#at;
    this.#at = 0;
    // Length words are written by their low byte alone.
    this.#bytes.fill(0);
  }
}

/** The bytes of a pagemap file. Entries must be aligned, ascending and without overlap. */
export function encodePagemap(pagesId: number, entries: Iterable<PagemapEntry>): Uint8Array {
  const parts: Uint8Array[] = [];
  const encoder = new PagemapEncoder(pagesId, (bytes) => parts.push(bytes.slice()));
  for (const entry of entries) encoder.add(entry);
  encoder.flush();
  return Buffer.concat(parts);
}

/** The address after a run. */
export function endOf(entry: PagemapEntry): bigint {
  return entry.vaddr + BigInt(entry.nrPages) * BigInt(PAGE_BYTES);
}

/**
 * What is wrong with a run, given the end of the one before. In numbers, for speed: a multiple of 4096 up to 2^64 is
 * exact in one, and what is no multiple is found out first.
 */
function fault(entry: PagemapEntry, previous_end: number): string | undefined {
  const { vaddr, nrPages, flags } = entry;
  const start = Number(vaddr);
  const at = () => `the run at 0x${vaddr.toString(16)}`;
  if (!Number.isInteger(nrPages) || nrPages < 1 || nrPages > PAGES_MAX) return `${at()} has ${nrPages} pages`;
  const aligned = start <= Number.MAX_SAFE_INTEGER ? start % PAGE_BYTES === 0 : (vaddr & 0xfffn) === 0n;
  if (start < 0 || !aligned) return `${at()} does not begin on a page`;
  if (start + nrPages * PAGE_BYTES > ADDRESS_END)
    return `${at()} of ${nrPages} pages ends past the address space`;
  if (start < previous_end) return `${at()} overlaps the one before it, or is out of order`;
  if ((flags & (PE_PARENT | PE_LAZY | PE_PRESENT)) === 0) return `${at()} is nowhere (flags ${flags})`;
  if ((flags & PE_PARENT) !== 0 && (flags & PE_PRESENT) !== 0)
    return `${at()} is both here and in the parent`;
  return undefined;
}

/** How many pages of the pages file a pagemap accounts for. */
function presentPages(pagemap: Pagemap): number {
  let pages = 0;
  for (const entry of pagemap.entries) if ((entry.flags & PE_PRESENT) !== 0) pages += entry.nrPages;
  return pages;
}

/**
 * Checks that the runs are aligned, in order and apart, and (given the length of pages-ID.img in bytes) that the
 * PRESENT ones fill that file exactly.
 * @throws ImageError with the offset of the run
 */
export function checkPagemap(pagemap: Pagemap, pages_bytes?: number): void {
  let end = 0;
  let index = 0;
  for (const entry of pagemap.entries) {
    const wrong = fault(entry, end);
    const offset = pagemap.positions[index++];
    if (wrong !== undefined)
      throw new ImageError(pagemap.file, wrong, offset === undefined ? {} : { offset });
    end = Number(entry.vaddr) + entry.nrPages * PAGE_BYTES;
  }
  if (pages_bytes === undefined) return;
  const expected = presentPages(pagemap) * PAGE_BYTES;
  if (expected !== pages_bytes) {
    const pages = `pages-${pagemap.pagesId}.img`;
    throw new ImageError(
      pagemap.file,
      `accounts for ${expected} bytes of ${pages}, which has ${pages_bytes}`,
    );
  }
}
