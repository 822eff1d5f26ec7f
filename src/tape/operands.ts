import type { SyscallName } from '../abi/syscalls.js';

/** What entries of a tape are made of; see tape.ts. */

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

/** The address of where the result of an entry is left; of a branch's, for a parent whose child shares its memory (CLONE_VM). */
export interface Cell {
  readonly kind: 'cell';
  readonly of: Result | BranchResult;
}

/** A place on a tape, to which an entry that answers 0 can lead. */
export interface Label {
  /** The entry there; undefined until it is placed. */
  index: number | undefined;
}

export function deferred(name: string): Deferred {
  return { kind: 'deferred', name, value: undefined };
}

export type Operand = number | bigint | Result | Space | Inside | Deferred | Value | Cell;

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

/** The result of an entry of a branch. It can be read; its `Cell` is an operand. */
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
