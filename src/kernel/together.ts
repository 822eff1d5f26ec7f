import type { SyscallName } from '../abi/syscalls.js';
import { ANY, Batch } from './batch.js';
import { addressOf } from './ffi.js';
import { NativeMemory } from './memory.js';

const CHUNK_SIZE = 1 << 20;
const ALIGN = 64;

/** Memory of this process for what the calls of one batch read or write; it stays where it is until the next. */
export class Arena {
  readonly #chunks: NativeMemory[] = [];
  #chunk = -1;
  #used = CHUNK_SIZE;

  /** Everything in it is given up. */
  clear(): void {
    this.#chunk = -1;
    this.#used = CHUNK_SIZE;
  }

  /** Room for so many bytes, with what was there before. */
  room(length: number): { readonly address: number; readonly bytes: Uint8Array } {
    if (length > CHUNK_SIZE) throw new RangeError(`${length} bytes are more than a chunk has`);
    if (this.#used + length > CHUNK_SIZE) {
      this.#chunk++;
      this.#used = 0;
    }
    const chunk = this.#chunks[this.#chunk] ?? new NativeMemory(CHUNK_SIZE);
    this.#chunks[this.#chunk] = chunk;
    const at = this.#used;
    this.#used = Math.ceil((at + length) / ALIGN) * ALIGN;
    return { address: Number(chunk.address) + at, bytes: chunk.bytes.subarray(at, at + length) };
  }
}

/** Calls that wait for others, to be made with them. */
export class Gathering {
  readonly batch = new Batch();
  readonly #arena = new Arena();
  #kept: Uint8Array[] = [];

  clear(): void {
    this.#arena.clear();
    this.#kept = [];
  }

  /** As Batch.add. */
  add(name: SyscallName, what: string, tid: number, least: number, args: readonly number[]): void {
    this.batch.add(name, what, tid, least, args);
  }

  /** Address of a copy of these bytes; of many, that of their own. */
  copy(bytes: Uint8Array): number {
    if (bytes.length > CHUNK_SIZE) {
      this.#kept.push(bytes);
      return Number(addressOf(bytes));
    }
    const room = this.#arena.room(bytes.length);
    room.bytes.set(bytes);
    return room.address;
  }

  /** Address of a struct iovec. */
  vector(address: number, length: number): number {
    const room = this.#arena.room(16);
    const view = new DataView(room.bytes.buffer, room.bytes.byteOffset, 16);
    view.setBigUint64(0, BigInt(address), true);
    view.setBigUint64(8, BigInt(length), true);
    return room.address;
  }
}

const shared = new Gathering();
let isGathering = false;

/** Where a call that changes something is to be put instead of being made; undefined where nobody gathers. */
export function gathering(): Gathering | undefined {
  return isGathering ? shared : undefined;
}

/** Beyond so many calls those that were gathered are made, lest what they copy takes too much room. */
const ENOUGH = 4096;

/**
 * Do the same to many tasks: what `action` changes by way of ptrace.ts and remote.ts is gathered, and then done at once, in its
 * order. `action` must not ask anything there. Answers who was lost on the way, and why: nothing more was done to these.
 */
export function together<T>(items: readonly T[], action: (item: T) => void): Map<T, unknown> {
  const lost = new Map<T, unknown>();
  let gathered: T[] = [];
  const play = () => {
    const made = gathered;
    gathered = [];
    for (const [number, error] of shared.batch.play()) lost.set(made[number] as T, error);
    shared.clear();
  };
  for (const item of items) {
    shared.batch.begin();
    gathered.push(item);
    isGathering = true;
    try {
      action(item);
    } catch (error) {
      shared.batch.takeBack();
      lost.set(item, error);
    } finally {
      isGathering = false;
    }
    if (shared.batch.length > ENOUGH) play();
  }
  play();
  return lost;
}

const asking = { batch: new Batch(), arena: new Arena() };

/** What the calls about one item have answered, until something else is asked. */
export interface Answers {
  /** What each of its calls answered. */
  readonly results: readonly number[];
  /** The room they had. */
  readonly view: DataView;
  readonly bytes: Uint8Array;
}

/**
 * Ask the same about many tasks at once: `put` adds the calls about one, which have `room` zeroed bytes at an address for what
 * they take and answer. Every call may fail. `failed` answers for an item whose calls could not even be made.
 */
export function askAll<K, T>(
  items: readonly K[],
  room: number,
  put: (ask: Ask, item: K, at: number, bytes: Uint8Array) => void,
  read: (answers: Answers, item: K) => T,
  failed: (error: unknown) => T = rethrow,
): T[] {
  const { batch, arena } = asking;
  arena.clear();
  const asked = items.map((item) => {
    const { address, bytes } = arena.room(room);
    bytes.fill(0);
    batch.begin();
    const first = batch.length;
    put((name, ...args) => batch.add(name, name, 0, ANY, args), item, address, bytes);
    return { item, bytes, first, count: batch.length - first };
  });
  const errors = batch.play();
  return asked.map(({ item, bytes, first, count }, number) => {
    if (errors.has(number)) return failed(errors.get(number));
    const results = Array.from({ length: count }, (_, index) => batch.result(first + index));
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return read({ results, view, bytes }, item);
  });
}

function rethrow(error: unknown): never {
  throw error;
}

export type Ask = (name: SyscallName, ...args: number[]) => void;
