import { ImageError } from '../../image/errors.js';
import { iteratePages, PAGE_BYTES } from '../../image/index.js';
import type { ImageId } from '../../image/kinds.js';
import type { ImageReader } from '../../image/reader.js';
import type { Operand, Tape } from '../../tape/tape.js';
import type { ProcessImage } from '../contract.js';

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
  for (const { vaddr, nrPages, source } of iteratePages(reader, id, options)) {
    if (source === undefined)
      throw new ImageError(
        reader.directory,
        `the page at 0x${vaddr.toString(16)} of ${id} was left with a lazy page server`,
      );
    const start = Number(vaddr);
    const { reader: from, pagesId, offset } = source;
    if (columns?.reader !== from || columns.pagesId !== pagesId) columns = new Columns(from, pagesId);
    runs.push(new ColumnRun(columns, { start, end: start + nrPages * PAGE_BYTES, offset }));
  }
  return runs;
}

export function runsOfProcess(image: ProcessImage): readonly Run[] {
  return runsOf(image.reader, image.pid);
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

/**
 * Entries that read runs, moved by `shift`, to where they belong. Runs whose contents follow each other in one file
 * share a call. `fdOf` answers the descriptor of a pages file on this tape.
 */
export function readRunsTo(tape: Tape, runs: Iterable<Run>, fdOf: (run: Run) => Operand, shift = 0n): void {
  let batch: Run[] = [];
  let bytes = 0;
  const flush = () => {
    const [first] = batch;
    if (first !== undefined) readBatch(tape, batch, bytes, fdOf(first), first.offset, shift);
    batch = [];
    bytes = 0;
  };
  const add = (run: Run) => {
    const [first] = batch;
    const follows =
      first !== undefined &&
      first.offset + bytes === run.offset &&
      first.pagesId === run.pagesId &&
      first.reader === run.reader;
    if (!follows || batch.length === PIECES_MAX || bytes + run.end - run.start > BYTES_MAX) flush();
    batch.push(run);
    bytes += run.end - run.start;
  };
  for (const run of runs) {
    if (run.end - run.start <= BYTES_MAX) add(run);
    else for (const piece of pieces(run)) add(piece);
  }
  flush();
}

function* pieces(run: Run): Generator<Run> {
  for (let at = run.start; at < run.end; at += BYTES_MAX) {
    const end = Math.min(at + BYTES_MAX, run.end);
    yield partOf(run, at, end);
  }
}

function readBatch(
  tape: Tape,
  batch: readonly Run[],
  bytes: number,
  fd: Operand,
  offset: number,
  shift: bigint,
): void {
  const vectors = new BigUint64Array(batch.length * 2);
  batch.forEach(({ start, end }, index) => {
    vectors[index * 2] = BigInt(start) + shift;
    vectors[index * 2 + 1] = BigInt(end - start);
  });
  const space = tape.space(new Uint8Array(vectors.buffer));
  tape.call('preadv', [fd, space, batch.length, offset, 0], bytes);
}
