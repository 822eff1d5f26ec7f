import { deflateSync, inflateSync } from 'node:zlib';
import * as U from '../../abi/io-uring.js';
import type { ImageReader } from '../../image/index.js';
import { isRecord, readJson } from '../../image/json.js';
import { lengthsOf, OFFSETS_LENGTH, type Offsets, offsetIn, type Shape } from './io-uring-layout.js';
import { decodeRequests, encodeRequests, type SavedRequests } from './io-uring-requests-codec.js';

/** stasis-uring.json: rings, which CRIU's format does not know. */
export const URING_FILE = 'stasis-uring.json';

/** Counters can only be brought back by as many operations. */
export const COUNTER_MAX = 2 ** 24;

export interface SavedRing extends Shape, SavedRequests {
  /** In files.img. */
  readonly id: number;
  /** O_* of its description. */
  readonly fileFlags: number;
  readonly offsets: Offsets;
  readonly sqHead: number;
  readonly cqTail: number;
  readonly clock: number;
  /** How many workers a task may have for it, bounded and unbounded; 0 where that is not limited. */
  readonly workers?: readonly [number, number];
  /** Ids of registered files; 0 where there is none. */
  readonly files: readonly number[];
  readonly fileRange: { readonly start: number; readonly end: number };
  readonly eventfd?: { readonly file: number; readonly isAsync: boolean };
  /** The process whose first thread alone may submit, by its id in the image. */
  readonly submitter?: number;
  /** Registered buffers, and the process whose memory they are; those without any length are gaps. */
  readonly buffers: readonly { readonly address: bigint; readonly length: number }[];
  readonly buffersOf?: number;
  /** Numbers that first threads of processes know it by. */
  readonly numbers: readonly { readonly pid: number; readonly number: number }[];
  /** Memory, as long as `lengthsOf` says. */
  readonly rings: Uint8Array;
  readonly sqes: Uint8Array;
}

export function encodeRings(rings: readonly SavedRing[]): Uint8Array {
  const pack = (bytes: Uint8Array) => deflateSync(bytes, { level: 1 }).toString('base64');
  const packed = rings.map((ring) => ({
    ...ring,
    buffers: ring.buffers.map(({ address, length }) => [address.toString(16), length]),
    requests: encodeRequests(ring.requests),
    rings: pack(ring.rings),
    sqes: pack(ring.sqes),
  }));
  return Buffer.from(`${JSON.stringify(packed, undefined, 1)}\n`);
}

export function readRings(reader: ImageReader): ReadonlyMap<number, SavedRing> {
  return readJson(reader, URING_FILE, decodeRings) ?? new Map();
}

export function decodeRings(content: unknown): Map<number, SavedRing> {
  if (!Array.isArray(content)) throw new Error('is no list');
  const budget = new RingBudget();
  return new Map(content.map((item) => decodeRing(item, budget)).map((ring) => [ring.id, ring]));
}

/** What all rings of an image cost together: memory of theirs, operations that they go through again, things registered. */
export type RingCost = Readonly<Record<'bytes' | 'operations' | 'entries', number>>;

/** Some hundred of the largest rings, half a minute, and as many files as one ring can have twice over. */
const BUDGET: RingCost = { bytes: 2 ** 28, operations: 2 ** 27, entries: 2 ** 21 };

/** So that no image of a few kilobytes takes gigabytes, or hours. */
export class RingBudget {
  readonly #left: Record<keyof RingCost, number> = { ...BUDGET };

  /** What rings have too much of, with one more of that cost; undefined as long as there is room. */
  spend(cost: RingCost): string | undefined {
    for (const name of ['bytes', 'operations', 'entries'] as const) {
      this.#left[name] -= cost[name];
      if (this.#left[name] < 0) return `more than ${BUDGET[name]} ${NAMES[name]} in all rings together`;
    }
    return undefined;
  }
}

const NAMES = {
  bytes: 'bytes of memory',
  operations: 'operations and completions',
  entries: 'registered files, buffers and numbers',
} as const;

const U32_MAX = 0xffff_ffff;
const LIST_MAX = 1 << 20;

function list(value: unknown, name: string): unknown[] {
  if (!Array.isArray(value) || value.length > LIST_MAX) throw new Error(`has a ring without ${name}`);
  return value;
}

function number(value: unknown, name: string, most = U32_MAX): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > most)
    throw new Error(`has a ring whose ${name} is ${JSON.stringify(value)}`);
  return value;
}

function numbers(value: unknown, name: string): number[] {
  return list(value, name).map((each) => number(each, name));
}

function entries(value: unknown, name: string, most: number): number {
  const count = number(value, name, most);
  if (count === 0 || (count & (count - 1)) !== 0) throw new Error(`has a ring of ${count} entries`);
  return count;
}

function decodeBuffer(item: unknown): { address: bigint; length: number } {
  const [address, length] = Array.isArray(item) ? item : [];
  if (typeof address !== 'string' || !/^[0-9a-f]{1,16}$/.test(address))
    throw new Error('has a ring with a buffer that is none');
  return { address: BigInt(`0x${address}`), length: number(length, 'length of a buffer') };
}

function decodeNumber(item: unknown): { pid: number; number: number } {
  const { pid, number: own } = isRecord(item) ? item : {};
  return { pid: number(pid, 'process'), number: number(own, 'number') };
}

/** IORING_REGISTER_IOWQ_MAX_WORKERS takes no more. */
const WORKERS_MAX = 0x7fff_ffff;

function decodeWorkers(item: unknown): readonly [number, number] {
  const [bounded, unbounded] = Array.isArray(item) ? item : [];
  return [
    number(bounded, 'bounded workers', WORKERS_MAX),
    number(unbounded, 'unbounded workers', WORKERS_MAX),
  ];
}

function decodeRing(item: unknown, budget: RingBudget): SavedRing {
  if (!isRecord(item)) throw new Error('has something that is no ring');
  const shape = {
    flags: number(item.flags, 'flags'),
    sqEntries: entries(item.sqEntries, 'size', U.IORING_MAX_ENTRIES),
    cqEntries: entries(item.cqEntries, 'number of completions', U.IORING_MAX_CQ_ENTRIES),
  };
  const offsets = numbers(item.offsets, 'offsets');
  const words = (['sqHead', 'sqTail', 'cqHead', 'cqTail'] as const).map((word) => offsetIn(offsets, word));
  if (
    offsets.length !== OFFSETS_LENGTH ||
    offsets.some((offset) => offset > OFFSET_MAX) ||
    words.some((offset) => offset > WORD_MAX || offset % 4 !== 0)
  )
    throw new Error('has a ring without offsets');
  const lengths = lengthsOf(shape, offsets);
  const counters = {
    sqHead: number(item.sqHead, 'head', COUNTER_MAX),
    cqTail: number(item.cqTail, 'tail', COUNTER_MAX),
  };
  const registered = {
    files: numbers(item.files, 'files'),
    buffers: list(item.buffers, 'buffers').map(decodeBuffer),
    numbers: list(item.numbers, 'numbers').map(decodeNumber),
  };
  const submitted = decodeRequests(item);
  if (submitted.requests.length > counters.sqHead)
    throw new Error(`has a ring with more operations on their way than were submitted`);
  // Before anything is unpacked.
  const excess = budget.spend({
    bytes: lengths.rings + lengths.sqes,
    operations: counters.sqHead + counters.cqTail,
    entries: Object.values(registered).reduce((sum, { length }) => sum + length, submitted.requests.length),
  });
  if (excess !== undefined) throw new Error(`has ${excess}`);
  const range = isRecord(item.fileRange) ? item.fileRange : {};
  const eventfd = isRecord(item.eventfd) ? item.eventfd : undefined;
  return {
    ...shape,
    id: number(item.id, 'file'),
    fileFlags: number(item.fileFlags, 'file flags'),
    offsets,
    ...counters,
    ...submitted,
    clock: number(item.clock, 'clock'),
    ...(item.workers === undefined ? {} : { workers: decodeWorkers(item.workers) }),
    ...registered,
    fileRange: { start: number(range.start, 'range of files'), end: number(range.end, 'range of files') },
    ...(eventfd === undefined
      ? {}
      : { eventfd: { file: number(eventfd.file, 'eventfd'), isAsync: eventfd.isAsync === true } }),
    ...(item.submitter === undefined ? {} : { submitter: number(item.submitter, 'submitter') }),
    ...(item.buffersOf === undefined ? {} : { buffersOf: number(item.buffersOf, 'owner of buffers') }),
    rings: unpack(item.rings, lengths.rings),
    sqes: unpack(item.sqes, lengths.sqes),
  };
}

/** Rings are a few megabytes long at most, and their words lie at the beginning. */
const OFFSET_MAX = 4 << 20;
const WORD_MAX = 2044;

function unpack(value: unknown, length: number): Uint8Array {
  if (typeof value !== 'string') throw new Error('has a ring without contents');
  const bytes = inflateSync(Buffer.from(value, 'base64'), { maxOutputLength: length + 1 });
  if (bytes.length !== length) throw new Error(`has a ring of ${bytes.length} bytes instead of ${length}`);
  return bytes;
}
