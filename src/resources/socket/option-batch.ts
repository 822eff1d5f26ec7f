import { ERRNO } from '../../abi/errno.js';
import { SYSCALL_X86_64 } from '../../abi/syscalls.js';
import { SyscallError } from '../../kernel/errors.js';
import { callBatch } from '../../kernel/ffi.js';
import { NativeMemory } from '../../kernel/memory.js';

/** An option by its level and number, and the most bytes it can have. */
export interface OptionQuestion {
  readonly level: number;
  readonly option: number;
  readonly length: number;
}

/** What getsockopt(2) says where this kind of socket has no option of that name. */
export const ABSENT: ReadonlySet<number> = new Set([
  -ERRNO.EOPNOTSUPP,
  -ERRNO.ENOPROTOOPT,
  -ERRNO.EINVAL,
  -ERRNO.ENOTCONN,
]);

/** An entry of a batch, see machine/x86_64.ts. */
const ENTRY_SIZE = 56;
const ENTRY = { arguments: 8, answer: 48 } as const;
const ALIGN = 8;

/**
 * The same options of many sockets: each time all of them are asked for at once, in one call through the FFI. First lie
 * the entries, then the values, each with the room that its option may take, then their lengths.
 */
export class OptionBatch {
  readonly #questions: readonly OptionQuestion[];
  readonly #memory: NativeMemory;
  /** The memory as it is before the questions are asked. */
  readonly #blank: Uint8Array;
  readonly #values: readonly number[];
  readonly #lengths: number;
  readonly #end: number;

  constructor(questions: readonly OptionQuestion[]) {
    this.#questions = questions;
    let at = questions.length * ENTRY_SIZE;
    this.#values = questions.map(({ length }) => {
      const value = at;
      at += Math.ceil(length / ALIGN) * ALIGN;
      return value;
    });
    this.#lengths = at;
    this.#end = at + questions.length * 4;
    this.#memory = new NativeMemory(this.#end);
    questions.forEach((question, index) => {
      this.#enter(question, index);
    });
    this.#blank = this.#memory.bytes.slice(0, this.#end);
  }

  #enter({ level, option, length }: OptionQuestion, index: number): void {
    const { view, address } = this.#memory;
    const at = index * ENTRY_SIZE;
    const words = [
      BigInt(SYSCALL_X86_64.getsockopt),
      BigInt(level),
      BigInt(option),
      address + BigInt(this.#values[index] ?? 0),
      address + BigInt(this.#lengths + index * 4),
    ];
    words.forEach((word, position) => {
      view.setBigUint64(at + position * ALIGN, word, true);
    });
    view.setUint32(this.#lengths + index * 4, length, true);
  }

  /** Ask them of a socket. Answers all that came back, for comparison. */
  ask(fd: number): Uint8Array {
    const { bytes, address } = this.#memory;
    bytes.set(this.#blank);
    callBatch('getsockopt', address, this.#questions.length, fd);
    return bytes.subarray(0, this.#end);
  }

  /** The bytes of an option as last asked for; undefined where the socket has none of the name. Throws SyscallError. */
  bytes(index: number): Uint8Array | undefined {
    const { view, bytes } = this.#memory;
    const answer = Number(view.getBigInt64(index * ENTRY_SIZE + ENTRY.answer, true));
    if (ABSENT.has(answer)) return undefined;
    const question = this.#questions[index];
    if (answer < 0 || question === undefined)
      throw new SyscallError('getsockopt', -answer, `option ${question?.option} of level ${question?.level}`);
    const at = this.#values[index] ?? 0;
    return bytes.subarray(at, at + view.getUint32(this.#lengths + index * 4, true));
  }

  /** An option of four bytes. */
  number(index: number): number | undefined {
    const value = this.bytes(index);
    if (value?.length !== 4) return undefined;
    return new DataView(value.buffer, value.byteOffset).getInt32(0, true);
  }
}
