import { SYSCALL_X86_64, type SyscallName } from '../abi/syscalls.js';
import { zeroed } from '../kernel/memory.js';
import * as L from './layout.js';
import type {
  Branch,
  BranchResult,
  Cell,
  Entry,
  Expectation,
  Inside,
  Label,
  Operand,
  Result,
  Space,
} from './operands.js';

/**
 * A tape: system calls as data, to be played in another task by the loop of machine/x86_64.ts.
 *
 * Entries are appended in the order in which they will be played; the result of one may be an argument of a later
 * one, and buffers carry structures in and out. Nothing has an address before `assemble`, so one tape can be
 * assembled for any workspace, and printed without one.
 */

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
  #draft: Draft | undefined;
  #note: string | undefined;

  /** `title` says whose tape it is and what for, in listings and errors. */
  constructor(title: string) {
    this.title = title;
  }

  get entries(): readonly Entry[] {
    return this.#entries;
  }

  /** Every system call on it but those of branches. */
  get calls(): SyscallName[] {
    const entries = [...this.#entries, ...this.#cleanups];
    return entries.flatMap(({ call }) => (call === undefined ? [] : [call]));
  }

  get hasTail(): boolean {
    return this.#cleanups.length > 0;
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
    this.#draft = undefined;
    this.#cleanups.push({ op: 'call', call: name, operands, expectation: 'any', note: 'tail' });
  }

  /**
   * Append a clone (an entry that answers 0 in the child) after which the child plays a list of its own and exits:
   * what `child` adds. Where the child has no memory of its own (CLONE_VM) and the parent is not asleep until it is gone
   * (CLONE_VFORK), both write the result of this very entry, which so says nothing (CLONE_PARENT_SETTID does), and what the
   * child adds must expect `any`: all else stops the parent. Answers where the child's pid will be.
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
    this.#draft = undefined;
    this.#branches.push(entries);
    const add = (entry: Entry): BranchResult => {
      this.#draft = undefined;
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
    this.#draft = undefined;
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
    this.#draft = undefined;
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
    this.#draft = undefined;
    this.#entries.push(entry);
    return { kind: 'result', index: this.#entries.length - 1 };
  }

  /** Offset, in an assembled tape, of a point of the spaces, or of a result. */
  #offsetOf(operand: Space | Inside | Cell): number {
    if (operand.kind === 'cell')
      return 'branch' in operand.of ? this.branchResultOffset(operand.of) : resultOffset(operand.of);
    const data = L.HEADER_SIZE + this.#cells * L.ENTRY_SIZE;
    return operand.kind === 'space' ? data + operand.offset : data + operand.space.offset + operand.at;
  }

  /**
   * The bytes of the tape for a slice at `base`; the header is left zero, for whoever plays it. The tail ends with
   * `last`: by default it leaves for the header's leave address. Assembled once, a tape is only moved to other bases.
   */
  assemble(base: bigint, last: 'leave' | 'exit' = 'leave'): Uint8Array {
    const isKnown = this.#draft?.last === last && this.#draft.isFixed;
    const draft = isKnown && this.#draft !== undefined ? this.#draft : this.#assembleDraft(last);
    this.#draft = draft;
    const bytes = zeroed(draft.bytes.length);
    bytes.set(draft.bytes);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    // Addresses are below 2^47, and sums of them with offsets no less exact as numbers.
    const start = Number(base);
    const { places, offsets } = draft;
    for (let i = 0; i < places.length; i++) putNumber(view, places[i] ?? 0, start + (offsets[i] ?? 0));
    return bytes;
  }

  /** Do most of what `assemble` has to do, for a time that is free. Deferred values are known by then, and stay as they are. */
  prepare(last: 'leave' | 'exit'): void {
    this.#draft = { ...this.#assembleDraft(last), isFixed: true };
  }

  #assembleDraft(last: 'leave' | 'exit'): Draft {
    const bytes = new Uint8Array(Math.max(this.size, 64));
    const view = new DataView(bytes.buffer);
    const draft: Draft = { last, bytes, view, places: [], offsets: [], isFixed: true };
    let at = L.HEADER_SIZE;
    for (const entry of this.#entries) at = this.#assembleEntry(entry, draft, at);
    view.setBigInt64(at, L.OP_END, true);
    at += L.ENTRY_SIZE;
    for (const entry of this.#cleanups) at = this.#assembleEntry(entry, draft, at);
    view.setBigInt64(at, last === 'leave' ? L.OP_LEAVE : BigInt(SYSCALL_X86_64.exit_group), true);
    at += L.ENTRY_SIZE;
    for (const entries of this.#branches) {
      for (const entry of entries) at = this.#assembleEntry(entry, draft, at);
      view.setBigInt64(at, BigInt(SYSCALL_X86_64.exit_group), true);
      at += L.ENTRY_SIZE;
    }
    const data = at;
    for (const chunk of this.#chunks) bytes.set(chunk.bytes, data + chunk.offset);
    for (const link of this.#links) relocate(draft, data + link.at, this.#offsetOf(link.target));
    return draft;
  }

  /** Address of the tail's first entry in a slice at `base`. */
  tailAddress(base: bigint): bigint {
    return base + BigInt(L.HEADER_SIZE + (this.#entries.length + 1) * L.ENTRY_SIZE);
  }

  #assembleEntry(entry: Entry, draft: Draft, at: number): number {
    const { view } = draft;
    const isCopy = entry.op === 'copy';
    putNumber(view, at, entry.call === undefined ? OP_COPY : SYSCALL_X86_64[entry.call]);
    let flags = 0;
    entry.operands.forEach((operand, position) => {
      if (this.#assembleOperand(operand, draft, at + L.ENTRY.arguments + position * 8) && !isCopy)
        flags |= 1 << position;
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
      relocate(draft, at + L.ENTRY.expected, L.HEADER_SIZE + cell * L.ENTRY_SIZE);
    }
    if (entry.goTo !== undefined) {
      const { index } = entry.goTo;
      if (index === undefined) throw new Error(`${this.title}: a label was never placed`);
      flags |= L.FLAG_BRANCH_ON_ZERO;
      relocate(draft, at + L.ENTRY.expected, L.HEADER_SIZE + index * L.ENTRY_SIZE);
    }
    view.setUint32(at + L.ENTRY.flags, flags, true);
    putNumber(view, at + L.ENTRY.result, NOT_PLAYED);
    return at + L.ENTRY_SIZE;
  }

  /** Answers whether the cell holds the address of the argument instead of the argument. */
  #assembleOperand(operand: Operand, draft: Draft, at: number): boolean {
    if (typeof operand === 'number') {
      putNumber(draft.view, at, operand);
      return false;
    }
    if (typeof operand === 'bigint') {
      draft.view.setBigUint64(at, BigInt.asUintN(64, operand), true);
      return false;
    }
    switch (operand.kind) {
      case 'result':
        relocate(draft, at, resultOffset(operand));
        return true;
      case 'deferred':
        if (operand.value === undefined) throw new Error(`${this.title}: ${operand.name} is not known yet`);
        draft.isFixed = false;
        draft.view.setBigUint64(at, BigInt.asUintN(64, BigInt(operand.value)), true);
        return false;
      case 'value':
        if (typeof operand.at === 'bigint') draft.view.setBigUint64(at, operand.at, true);
        else relocate(draft, at, this.#offsetOf(operand.at));
        return true;
      default:
        relocate(draft, at, this.#offsetOf(operand));
        return false;
    }
  }
}

function resultOffset({ index }: Result): number {
  return L.HEADER_SIZE + index * L.ENTRY_SIZE + L.ENTRY.result;
}

/** A tape assembled for base 0, with the places where the base is to be added to an offset. */
interface Draft {
  readonly last: 'leave' | 'exit';
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly places: number[];
  readonly offsets: number[];
  /** False where it holds a deferred value, which may be another one the next time. */
  isFixed: boolean;
}

function relocate({ places, offsets }: Draft, place: number, offset: number): void {
  places.push(place);
  offsets.push(offset);
}

const OP_COPY = Number(L.OP_COPY);
const NOT_PLAYED = Number(L.NOT_PLAYED);

/** A safe integer as 64 bits, in two's complement; several times as fast as by way of a bigint. */
function putNumber(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000) >>> 0, true);
}

export * from './operands.js';
export { Played } from './played.js';
