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

export interface Pagemap {
  /** The path of the file, for messages. */
  readonly file: string;
  readonly pagesId: number;
  readonly entries: readonly PagemapEntry[];
  /** Where each entry begins in the file, for messages. */
  readonly positions: readonly number[];
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
  const entries: PagemapEntry[] = [];
  const positions: number[] = [];
  while (cursor.left > 0) {
    positions.push(cursor.offset);
    entries.push(decodeEntry(cursor, bytes, place));
  }
  return { file, pagesId, entries, positions };
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

/** The bytes of a pagemap file. Entries must be aligned, ascending and without overlap. */
export function encodePagemap(pagesId: number, entries: readonly PagemapEntry[]): Uint8Array {
  const head = toBinary(pagemap_headSchema, { $typeName: 'pagemap_head', pagesId });
  const prefix = Buffer.concat([...encodeMagic(KIND), Uint8Array.of(head.length, 0, 0, 0), head]);
  const bytes = new Uint8Array(prefix.length + entries.length * ENTRY_BYTES_MAX);
  bytes.set(prefix);
  let at = prefix.length;
  let end = 0;
  for (const entry of entries) {
    const wrong = fault(entry, end);
    if (wrong !== undefined) throw new ImageError('pagemap', `cannot be written: ${wrong}`, { offset: at });
    end = Number(entry.vaddr) + entry.nrPages * PAGE_BYTES;
    at = encodeEntry(bytes, at, entry);
  }
  return bytes.subarray(0, at);
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
export function presentPages(pagemap: Pagemap): number {
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
  pagemap.entries.forEach((entry, index) => {
    const wrong = fault(entry, end);
    const offset = pagemap.positions[index];
    if (wrong !== undefined)
      throw new ImageError(pagemap.file, wrong, offset === undefined ? {} : { offset });
    end = Number(entry.vaddr) + entry.nrPages * PAGE_BYTES;
  });
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
