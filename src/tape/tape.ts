import { SYSCALL_X86_64, type SyscallName } from '../abi/syscalls.js';
import * as L from './layout.js';

/**
 * A tape: system calls as data, to be played in another task by the loop of machine/x86_64.ts.
 *
 * Entries are appended in the order in which they will be played; the result of one may be an argument of a later
 * one, and buffers carry structures in and out. Nothing has an address before `assemble`, so one tape can be
 * assembled for any workspace, and printed without one.
 */

/** The result of an entry, usable as an argument of later ones. */
export interface Result {
  readonly kind: 'result';
  readonly index: number;
}

/** Bytes that travel with the tape; as an argument it stands for its address there. */
export interface Space {
  readonly kind: 'space';
  readonly offset: number;
  readonly length: number;
}

/** The address of a point within a space. */
export interface Inside {
  readonly kind: 'inside';
  readonly space: Space;
  readonly at: number;
}

/** A number that is known only when the tape is about to be played, such as the pid of a helper. */
export interface Deferred {
  readonly kind: 'deferred';
  /** How it prints: "<holder>". */
  readonly name: string;
  value: number | bigint | undefined;
}

/** The eight bytes that are found at an address, or a point inside a space, when the entry is played. */
export interface Value {
  readonly kind: 'value';
  readonly at: Inside | bigint;
}

/** A place on a tape, to which an entry that answers 0 can lead. */
export interface Label {
  /** The entry there; undefined until it is placed. */
  index: number | undefined;
}

export function deferred(name: string): Deferred {
  return { kind: 'deferred', name, value: undefined };
}

export type Operand = number | bigint | Result | Space | Inside | Deferred | Value;

/**
 * What an entry must answer for the tape to go on: success (nothing in −4095…−1) by default, an exact value, or
 * anything. A tape stops at the first answer that is not as expected.
 */
export type Expectation = 'success' | 'any' | number | bigint;

export interface Entry {
  readonly op: 'call' | 'copy';
  readonly call: SyscallName | undefined;
  readonly operands: readonly Operand[];
  readonly expectation: Expectation;
  /** What the entry is for, in words: "descriptor 7 (eventfd)". Printed, and named in errors. */
  readonly note: string | undefined;
  /** The list that a task plays in which the entry answers 0. */
  readonly branch?: number;
  /** Where the tape goes on when the entry answers 0. */
  readonly goTo?: Label;
}

/** The result of an entry of a branch. It can be read, but is no operand. */
export interface BranchResult {
  readonly branch: number;
  readonly index: number;
}

/** What a cloned child plays before it exits. */
export interface Branch {
  call(name: SyscallName, operands: readonly Operand[], expectation?: Expectation): BranchResult;
  clone(
    operands: readonly Operand[],
    child: (branch: Branch) => void,
    expectation?: Expectation,
  ): BranchResult;
}

const CLONE = { op: 'call', call: 'clone3' } as const;

/** A pointer inside a space, written when the tape is assembled. */
interface Link {
  readonly at: number;
  readonly target: Space | Inside;
}

const ALIGNMENT = 16;

export class Tape {
  readonly title: string;
  readonly #entries: Entry[] = [];
  readonly #cleanups: Entry[] = [];
  /** What children cloned by a tape play; each ends with exit_group(2). */
  readonly #branches: Entry[][] = [];
  readonly #chunks: { offset: number; bytes: Uint8Array }[] = [];
  readonly #links: Link[] = [];
  #length = 0;
  #note: string | undefined;

  /** `title` says whose tape it is and what for, in listings and errors. */
  constructor(title: string) {
    this.title = title;
  }

  get entries(): readonly Entry[] {
    return this.#entries;
  }

  /** Bytes of all spaces. */
  get dataLength(): number {
    return this.#length;
  }

  /** Bytes it takes in a slice. */
  get size(): number {
    return L.HEADER_SIZE + this.#cells * L.ENTRY_SIZE + this.#length;
  }

  /** Entries, their end, the tail, and its end. */
  get #cells(): number {
    return this.#branchCell(this.#branches.length);
  }

  /** Number of the cell at which a branch begins: behind the entries, the tail and the branches before it. */
  #branchCell(branch: number): number {
    const before = this.#branches.slice(0, branch).reduce((sum, entries) => sum + entries.length + 1, 0);
    return this.#entries.length + this.#cleanups.length + 2 + before;
  }

  /** The note for all entries appended from here on. */
  about(note: string | undefined): void {
    this.#note = note;
  }

  /** Append a system call. */
  call(name: SyscallName, operands: readonly Operand[], expectation: Expectation = 'success'): Result {
    if (operands.length > 6) throw new RangeError(`${name}: more than six arguments`);
    return this.#append({ op: 'call', call: name, operands, expectation, note: this.#note });
  }

  /** A place that is not on the tape yet. */
  label(): Label {
    return { index: undefined };
  }

  /** The entry that is appended next is the one that `label` means. */
  place(label: Label): void {
    label.index = this.#entries.length;
  }

  /** Append a system call after which the tape goes on at `label` if it answers 0, and with the next entry otherwise. */
  jump(name: SyscallName, operands: readonly Operand[], label: Label): Result {
    const entry = {
      op: 'call',
      call: name,
      operands,
      expectation: 'any',
      note: this.#note,
      goTo: label,
    } as const;
    return this.#append(entry);
  }

  /** Address of an entry of a tape assembled at `base`, and of the cells that it has. */
  entryAddress(index: number, base: bigint, cell = 0): bigint {
    return base + BigInt(L.HEADER_SIZE + index * L.ENTRY_SIZE + cell);
  }

  /**
   * Add a call to the tail: what the task does when it is let go, or finds itself orphaned, after the tape.
   * Results of entries that were never played read −1 there. The tail of a tape is played at most once.
   */
  cleanup(name: SyscallName, operands: readonly Operand[]): void {
    this.#cleanups.push({ op: 'call', call: name, operands, expectation: 'any', note: 'tail' });
  }

  /**
   * Append a clone (an entry that answers 0 in the child) after which the child plays a list of its own and exits:
   * what `child` adds. The child must have memory of its own, or the parent be asleep until it is gone (CLONE_VFORK):
   * both write their results to the same cells otherwise. Answers where the child's pid will be.
   */
  clone(
    operands: readonly Operand[],
    child: (branch: Branch) => void,
    expectation: Expectation = 'success',
  ): Result {
    const result = this.#append({
      ...CLONE,
      operands,
      expectation,
      note: this.#note,
      branch: this.#branches.length,
    });
    child(this.#newBranch());
    return result;
  }

  #newBranch(): Branch {
    const branch = this.#branches.length;
    const entries: Entry[] = [];
    this.#branches.push(entries);
    const add = (entry: Entry): BranchResult => {
      entries.push(entry);
      return { branch, index: entries.length - 1 };
    };
    return {
      call: (call, operands, expectation = 'success') =>
        add({ op: 'call', call, operands, expectation, note: this.#note }),
      clone: (operands, child, expectation = 'success') => {
        const result = add({
          ...CLONE,
          operands,
          expectation,
          note: this.#note,
          branch: this.#branches.length,
        });
        child(this.#newBranch());
        return result;
      },
    };
  }

  /** Offset in an assembled tape of the cell of a branch's result. */
  branchResultOffset({ branch, index }: BranchResult): number {
    return L.HEADER_SIZE + (this.#branchCell(branch) + index) * L.ENTRY_SIZE + L.ENTRY.result;
  }

  /** Append a copy of a result (its low 4 bytes, or all 8) to a point inside a space. */
  copy(result: Result, space: Space, at: number, width: 4 | 8 = 4): void {
    if (at + width > space.length) throw new RangeError('copy leaves its space');
    const operands = [result, { kind: 'inside', space, at } as const, width];
    this.#append({ op: 'copy', call: undefined, operands, expectation: 'any', note: this.#note });
  }

  /** Zeroed room, or bytes to send along. Their alignment is 16; `readonly` bytes are not copied until assembly. */
  space(content: number | Uint8Array): Space {
    const length = typeof content === 'number' ? content : content.length;
    const offset = this.#length;
    if (typeof content !== 'number') this.#chunks.push({ offset, bytes: content });
    this.#length = Math.ceil((offset + Math.max(length, 1)) / ALIGNMENT) * ALIGNMENT;
    return { kind: 'space', offset, length };
  }

  /** A NUL-terminated string. */
  string(text: string | Uint8Array): Space {
    const bytes = typeof text === 'string' ? Buffer.from(text) : text;
    if (bytes.includes(0)) throw new RangeError('a string with a NUL byte cannot go to the kernel');
    return this.space(Buffer.concat([bytes, Buffer.of(0)]));
  }

  /** Write the address of `target` into `space` at `at` when the tape is assembled (iovecs, sigevents). */
  pointer(space: Space, at: number, target: Space | Inside): void {
    this.#links.push({ at: space.offset + at, target });
  }

  /** The bytes a space was made with; undefined for zeroed room. */
  content(space: Space): Uint8Array | undefined {
    return this.#chunks.find((chunk) => chunk.offset === space.offset)?.bytes;
  }

  /** A space that holds a NUL-terminated string, as text. */
  text(space: Space): string | undefined {
    const bytes = this.content(space);
    return bytes?.at(-1) === 0 ? Buffer.from(bytes.subarray(0, -1)).toString() : undefined;
  }

  #append(entry: Entry): Result {
    this.#entries.push(entry);
    return { kind: 'result', index: this.#entries.length - 1 };
  }

  /** Address, in a workspace slice at `base`, of a point of the spaces. */
  #addressOf(operand: Space | Inside, base: bigint): bigint {
    const data = base + BigInt(L.HEADER_SIZE + this.#cells * L.ENTRY_SIZE);
    return operand.kind === 'space'
      ? data + BigInt(operand.offset)
      : data + BigInt(operand.space.offset + operand.at);
  }

  #resultAddress(result: Result, base: bigint): bigint {
    return base + BigInt(L.HEADER_SIZE + result.index * L.ENTRY_SIZE + L.ENTRY.result);
  }

  /**
   * The bytes of the tape for a slice at `base`; the header is left zero, for whoever plays it. The tail ends with
   * `last`: by default it leaves for the header's leave address.
   */
  assemble(base: bigint, last: 'leave' | 'exit' = 'leave'): Uint8Array {
    const bytes = new Uint8Array(Math.max(this.size, 64));
    const view = new DataView(bytes.buffer);
    let at = L.HEADER_SIZE;
    for (const entry of this.#entries) at = this.#assembleEntry(entry, view, at, base);
    view.setBigInt64(at, L.OP_END, true);
    at += L.ENTRY_SIZE;
    for (const entry of this.#cleanups) at = this.#assembleEntry(entry, view, at, base);
    view.setBigInt64(at, last === 'leave' ? L.OP_LEAVE : BigInt(SYSCALL_X86_64.exit_group), true);
    at += L.ENTRY_SIZE;
    for (const entries of this.#branches) {
      for (const entry of entries) at = this.#assembleEntry(entry, view, at, base);
      view.setBigInt64(at, BigInt(SYSCALL_X86_64.exit_group), true);
      at += L.ENTRY_SIZE;
    }
    const data = at;
    for (const chunk of this.#chunks) bytes.set(chunk.bytes, data + chunk.offset);
    for (const link of this.#links)
      view.setBigUint64(data + link.at, this.#addressOf(link.target, base), true);
    return bytes;
  }

  /** Address of the tail's first entry in a slice at `base`. */
  tailAddress(base: bigint): bigint {
    return base + BigInt(L.HEADER_SIZE + (this.#entries.length + 1) * L.ENTRY_SIZE);
  }

  #assembleEntry(entry: Entry, view: DataView, at: number, base: bigint): number {
    const isCopy = entry.op === 'copy';
    putNumber(view, at, entry.call === undefined ? OP_COPY : SYSCALL_X86_64[entry.call]);
    let flags = 0;
    entry.operands.forEach((operand, position) => {
      let value: bigint;
      if (typeof operand === 'number') {
        putNumber(view, at + L.ENTRY.arguments + position * 8, operand);
        return;
      }
      if (typeof operand === 'object' && operand.kind === 'result') {
        value = this.#resultAddress(operand, base);
        if (!isCopy) flags |= 1 << position;
      } else if (typeof operand === 'object' && operand.kind === 'deferred') {
        if (operand.value === undefined) throw new Error(`${this.title}: ${operand.name} is not known yet`);
        value = BigInt.asUintN(64, BigInt(operand.value));
      } else if (typeof operand === 'object' && operand.kind === 'value') {
        value = typeof operand.at === 'bigint' ? operand.at : this.#addressOf(operand.at, base);
        flags |= 1 << position;
      } else if (typeof operand === 'object') value = this.#addressOf(operand, base);
      else value = BigInt.asUintN(64, operand);
      view.setBigUint64(at + L.ENTRY.arguments + position * 8, value, true);
    });
    if (entry.expectation === 'any') flags |= L.FLAG_MAY_FAIL;
    else if (entry.expectation !== 'success') {
      flags |= L.FLAG_EXACT;
      view.setBigUint64(at + L.ENTRY.expected, BigInt.asUintN(64, BigInt(entry.expectation)), true);
    }
    if (entry.branch !== undefined) {
      if ((flags & L.FLAG_EXACT) !== 0)
        throw new Error('a clone cannot expect an exact answer: its child answers 0');
      flags |= L.FLAG_BRANCH_ON_ZERO;
      const cell = this.#branchCell(entry.branch);
      view.setBigUint64(at + L.ENTRY.expected, base + BigInt(L.HEADER_SIZE + cell * L.ENTRY_SIZE), true);
    }
    if (entry.goTo !== undefined) {
      const { index } = entry.goTo;
      if (index === undefined) throw new Error(`${this.title}: a label was never placed`);
      flags |= L.FLAG_BRANCH_ON_ZERO;
      view.setBigUint64(at + L.ENTRY.expected, this.entryAddress(index, base), true);
    }
    view.setUint32(at + L.ENTRY.flags, flags, true);
    putNumber(view, at + L.ENTRY.result, NOT_PLAYED);
    return at + L.ENTRY_SIZE;
  }
}

const OP_COPY = Number(L.OP_COPY);
const NOT_PLAYED = Number(L.NOT_PLAYED);

/** A safe integer as 64 bits, in two's complement; several times as fast as by way of a bigint. */
function putNumber(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000) >>> 0, true);
}

export { Played } from './played.js';
