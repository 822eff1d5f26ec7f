import { ImageError } from '../../image/errors.js';
import { iteratePages, PAGE_BYTES } from '../../image/index.js';
import type { ImageId } from '../../image/kinds.js';
import type { ImageReader } from '../../image/reader.js';
import type { Operand, Space, Tape } from '../../tape/tape.js';
import type { ProcessImage } from '../contract.js';
import type { AddressFile } from './address-file.js';

/** Pages of an image and how they come into memory: one preadv(2) for up to a thousand runs of pages. */

/** Addresses as numbers, as in scan.ts: hundreds of thousands of runs are looked at one by one. */
export interface Run {
  readonly start: number;
  readonly end: number;
  readonly reader: ImageReader;
  readonly pagesId: number;
  /** In bytes from the start of the pages file. */
  readonly offset: number;
}

const known = new WeakMap<ImageReader, Map<string, readonly Run[]>>();

/** The runs of a process, or of shared memory, ascending; read once an image. */
export function runsOf(reader: ImageReader, id: ImageId, options: { shmem?: boolean } = {}): readonly Run[] {
  const cache = known.get(reader) ?? new Map<string, readonly Run[]>();
  known.set(reader, cache);
  const key = `${options.shmem === true ? 'shmem ' : ''}${id}`;
  const runs = cache.get(key) ?? readRuns(reader, id, options);
  cache.set(key, runs);
  return runs;
}

/** Runs of one pages file, in columns: V8 keeps arrays of numbers without a box for each. */
class Columns {
  readonly reader: ImageReader;
  readonly pagesId: number;
  readonly starts: number[] = [];
  readonly ends: number[] = [];
  readonly offsets: number[] = [];

  constructor(reader: ImageReader, pagesId: number) {
    this.reader = reader;
    this.pagesId = pagesId;
  }
}

/** A run in half the memory. Its fields are no properties of its own, so `{ ...run }` has none of them. */
class ColumnRun implements Run {
  readonly #columns: Columns;
  readonly #index: number;

  constructor(columns: Columns, { start, end, offset }: Pick<Run, 'start' | 'end' | 'offset'>) {
    this.#columns = columns;
    this.#index = columns.starts.push(start) - 1;
    columns.ends.push(end);
    columns.offsets.push(offset);
  }

  get start(): number {
    return this.#columns.starts[this.#index] ?? 0;
  }

  get end(): number {
    return this.#columns.ends[this.#index] ?? 0;
  }

  get offset(): number {
    return this.#columns.offsets[this.#index] ?? 0;
  }

  get reader(): ImageReader {
    return this.#columns.reader;
  }

  get pagesId(): number {
    return this.#columns.pagesId;
  }
}

/** A part of a run, or all of it. */
export function partOf(run: Run, start: number, end: number): Run {
  const { reader, pagesId, offset } = run;
  if (start === run.start && end === run.end) return run;
  return { start, end, reader, pagesId, offset: offset + start - run.start };
}

function readRuns(reader: ImageReader, id: ImageId, options: { shmem?: boolean }): Run[] {
  const runs: Run[] = [];
  let columns: Columns | undefined;
  for (const run of iterateRuns(reader, id, options)) {
    const { reader: from, pagesId } = run;
    if (columns?.reader !== from || columns.pagesId !== pagesId) columns = new Columns(from, pagesId);
    runs.push(new ColumnRun(columns, run));
  }
  return runs;
}

function* iterateRuns(
  reader: ImageReader,
  id: ImageId,
  options: { shmem?: boolean; within?: { start: bigint; end: bigint } },
): Generator<Run> {
  for (const { vaddr, nrPages, source } of iteratePages(reader, id, options)) {
    if (source === undefined)
      throw new ImageError(
        reader.directory,
        `the page at 0x${vaddr.toString(16)} of ${id} was left with a lazy page server`,
      );
    const start = Number(vaddr);
    const { reader: from, pagesId, offset } = source;
    yield { start, end: start + nrPages * PAGE_BYTES, reader: from, pagesId, offset };
  }
}

/** With more runs than this it is cheaper to go through a pagemap again than to keep them. */
const KEPT_MAX = 50_000;

/** As `runsOf`, for those who go through them: of a large pagemap nothing is kept. */
export function eachRunOf(
  reader: ImageReader,
  id: ImageId,
  options: { shmem?: boolean } = {},
): Iterable<Run> {
  if (countRuns(reader, id, options) <= KEPT_MAX) return runsOf(reader, id, options);
  return { [Symbol.iterator]: () => iterateRuns(reader, id, options) };
}

export function countRuns(reader: ImageReader, id: ImageId, options: { shmem?: boolean } = {}): number {
  return reader.pagemap(id, options)?.entries.length ?? 0;
}

export function runsOfProcess(image: ProcessImage): readonly Run[] {
  return runsOf(image.reader, image.pid);
}

/** Runs, and parts of runs, between two addresses. */
export function runsWithin(image: ProcessImage, within: { start: bigint; end: bigint }): Iterable<Run> {
  return iterateRuns(image.reader, image.pid, { within });
}

export function eachRunOfProcess(image: ProcessImage): Iterable<Run> {
  return eachRunOf(image.reader, image.pid);
}

/** The holder's key of the pages file that a run is in, seen from the image that is restored. */
export function keyOfPages(image: ImageReader, { reader, pagesId }: Run): string {
  let prefix = '';
  for (let at: ImageReader | undefined = image; at !== undefined; at = at.parent()) {
    if (at === reader) return `image:${prefix}pages-${pagesId}.img`;
    prefix += 'parent/';
  }
  throw new Error(`${reader.directory} is no parent of ${image.directory}`);
}

/** The kernel's limits of one call: UIO_MAXIOV pieces, and just under 2 GiB (MAX_RW_COUNT). */
const PIECES_MAX = 1024;
const BYTES_MAX = 1 << 30;

/** Descriptors of pages files, and of the file of addresses where there is one, as a tape has them. */
export interface Descriptors {
  pages(run: Run): Operand;
  readonly addresses?: { readonly file: AddressFile; fd(): Operand } | undefined;
}

/** The arguments of a preadv(2), and how many bytes it has to read. */
export interface Reading {
  readonly operands: readonly Operand[];
  readonly bytes: number;
}

/**
 * Entries that read runs, moved by `shift`, to where they belong. Runs whose contents follow each other in one file
 * share a call.
 */
export function readRunsTo(tape: Tape, runs: Iterable<Run>, descriptors: Descriptors, shift = 0n): void {
  for (const { operands, bytes } of readingsOf(tape, runs, descriptors, shift))
    tape.call('preadv', operands, bytes);
}

/** The calls of `readRunsTo`, one by one; what they need is on the tape. With a file of addresses, that is one room for all. */
export function* readingsOf(
  tape: Tape,
  runs: Iterable<Run>,
  descriptors: Descriptors,
  shift = 0n,
): Generator<Reading> {
  const { addresses } = descriptors;
  const vectors = new Vectors(Number(shift));
  let first: Run | undefined;
  let room: Space | undefined;
  const place = (content: Uint8Array): Space => {
    if (addresses === undefined) return tape.space(content.slice());
    room ??= tape.space(PIECES_MAX * VECTOR_BYTES);
    const at = addresses.file.append(content);
    tape.call('pread64', [addresses.fd(), room, content.length, at], content.length);
    return room;
  };
  function* flush(): Generator<Reading> {
    if (first === undefined) return;
    const fd = descriptors.pages(first);
    const operands = [fd, place(vectors.content), vectors.count, first.offset, 0];
    yield { operands, bytes: vectors.bytes };
    vectors.clear();
    first = undefined;
  }
  for (const run of inPieces(runs)) {
    const { bytes, count } = vectors;
    const follows =
      first !== undefined &&
      first.offset + bytes === run.offset &&
      first.pagesId === run.pagesId &&
      first.reader === run.reader;
    if (!follows || count === PIECES_MAX || bytes + run.end - run.start > BYTES_MAX) yield* flush();
    first ??= run;
    vectors.add(run.start, run.end);
  }
  yield* flush();
}

function* inPieces(runs: Iterable<Run>): Generator<Run> {
  for (const run of runs)
    if (run.end - run.start <= BYTES_MAX) yield run;
    else yield* pieces(run);
}

function* pieces(run: Run): Generator<Run> {
  for (let at = run.start; at < run.end; at += BYTES_MAX) {
    const end = Math.min(at + BYTES_MAX, run.end);
    yield partOf(run, at, end);
  }
}

const VECTOR_BYTES = 16;

/** The iovecs of one call. Numbers, and no objects: of those there would be one a run. */
class Vectors {
  count = 0;
  bytes = 0;
  readonly #shift: number;
  readonly #words = new Uint32Array((PIECES_MAX * VECTOR_BYTES) / 4);

  constructor(shift: number) {
    this.#shift = shift;
  }

  add(start: number, end: number): void {
    const at = this.count++ * 4;
    const base = start + this.#shift;
    this.#words[at] = base >>> 0;
    this.#words[at + 1] = Math.floor(base / 0x1_0000_0000);
    this.#words[at + 2] = end - start;
    this.bytes += end - start;
  }

  get content(): Uint8Array {
    return new Uint8Array(this.#words.buffer, 0, this.count * VECTOR_BYTES);
  }

  clear(): void {
    this.count = 0;
    this.bytes = 0;
  }
}
