import { SYSCALL_X86_64, type SyscallName } from '../abi/syscalls.js';
import { BATCH_ENTRY } from '../machine/x86_64.js';
import { SyscallError } from './errors.js';
import { callAll, hook } from './ffi.js';
import { NativeMemory } from './memory.js';

const WORDS = BATCH_ENTRY.size / 4;
const RESULT = BATCH_ENTRY.result / 4;
const LEAST = BATCH_ENTRY.least / 4;
const HIGH = 0x1_0000_0000;
const FIRST_ROOM = 1024;
/** Less than any errno: a call that may fail. */
export const ANY = -4096;

/** For messages. */
interface Made {
  readonly name: SyscallName;
  /** As `ptrace(PTRACE_CONT)`. */
  readonly what: string;
  readonly tid: number;
}

/**
 * System calls that are made one after the other by machine code, for the price of one through the FFI and a fraction of a
 * microsecond each: what is done to each of many threads while they stand still. They belong to items: the first call of an
 * item that answers less than it must is its last.
 */
export class Batch {
  #memory = new NativeMemory(FIRST_ROOM * BATCH_ENTRY.size);
  #words = new Int32Array(this.#memory.bytes.buffer);
  #made: Made[] = [];
  /** Number of the first call of each item. */
  #begins: number[] = [];

  get length(): number {
    return this.#made.length;
  }

  /** What is added from here on is done for the next item. */
  begin(): void {
    this.#begins.push(this.#made.length);
  }

  /** `what` is done to `tid`. Arguments are integers from −2^31 on, and addresses. */
  add(name: SyscallName, what: string, tid: number, least: number, args: readonly number[]): void {
    const at = this.#made.length * WORDS;
    if (at + WORDS > this.#words.length) this.#grow();
    this.#made.push({ name, what, tid });
    const words = this.#words;
    words[at] = SYSCALL_X86_64[name];
    for (let i = 0; i < 6; i++) put(words, at + 2 + 2 * i, args[i] ?? 0);
    put(words, at + LEAST, least);
  }

  /** What the call of this number has answered. */
  result(number: number): number {
    const at = number * WORDS + RESULT;
    return ((this.#words[at] ?? 0) >>> 0) + (this.#words[at + 1] ?? 0) * HIGH;
  }

  /** Take back what was added for the last item. */
  takeBack(): void {
    this.#made.length = this.#begins.at(-1) ?? 0;
  }

  /** Make the calls. Answers why the items that failed did, by their numbers. The results stay until something is added. */
  play(): Map<number, unknown> {
    const failed = new Map<number, unknown>();
    const begins = [...this.#begins, this.#made.length];
    for (let item = 0; item < begins.length - 1; ) {
      const { at, error } = this.#playFrom(begins[item] ?? 0);
      if (error === undefined) break;
      while ((begins[item + 1] ?? at + 1) <= at) item++;
      failed.set(item, error);
      item++;
    }
    this.#made = [];
    this.#begins = [];
    return failed;
  }

  /** The number of the call that ended it, and its error; none where all were made. */
  #playFrom(first: number): { readonly at: number; readonly error: unknown } {
    const count = this.#made.length;
    const { beforeCall } = hook;
    let at = first;
    try {
      if (beforeCall === undefined) at = count - this.#callFrom(first, count - first);
      // Whoever looks at every call sees each before it is made.
      else
        for (; at < count; at++) {
          beforeCall(this.#made[at]?.name ?? 'getpid');
          if (this.#callFrom(at, 1) > 0) break;
        }
    } catch (error) {
      return { at, error };
    }
    if (at === count) return { at, error: undefined };
    return { at, error: this.#errorOf(at) };
  }

  #callFrom(first: number, count: number): number {
    return callAll(this.#memory.address + BigInt(first * BATCH_ENTRY.size), count);
  }

  #errorOf(number: number): Error {
    const { what = '', tid = 0 } = this.#made[number] ?? {};
    const result = this.result(number);
    if (result < 0) return new SyscallError(what, -result, `task ${tid}`);
    const least = this.#words[number * WORDS + LEAST] ?? 0;
    return new Error(`${what} (task ${tid}): ${result} of ${least} bytes; the rest is not mapped`);
  }

  #grow(): void {
    const larger = new NativeMemory(this.#memory.length * 4);
    larger.bytes.set(this.#memory.bytes);
    this.#memory[Symbol.dispose]();
    this.#memory = larger;
    this.#words = new Int32Array(larger.bytes.buffer);
  }
}

function put(words: Int32Array, at: number, value: number): void {
  words[at] = value;
  words[at + 1] = Math.floor(value / HIGH);
}
