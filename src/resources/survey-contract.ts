import type { file_entry } from '../image/schema/index.js';
import type { Conditions } from '../tape/conditions.js';
import type { Played, Result, Tape } from '../tape/tape.js';
import type { Descriptor, DumpContext } from './contract.js';

/**
 * A survey of descriptors: what a few system calls of this process tell of each is put on one tape while the tree runs, and
 * asked as soon as it stands still. The answers are read, and entries made of them, when it goes on.
 */
export interface Survey {
  readonly tape: Tape;
  /** A duplicate of the descriptor. */
  readonly taken: Result;
  /** What the answers have to be to say all; where they are not, the descriptor is dumped as if nothing had been asked. */
  readonly conditions: Conditions;
  /** Its fdinfo has to begin with this. */
  begins(text: string): void;
}

/** As `FileKind.dump`, of a descriptor whose owner is nobody. The tree may go on already. */
export type DumpAnswers = (
  descriptor: Descriptor,
  id: number,
  answers: Answers,
  context: DumpContext,
) => file_entry;

/** What a descriptor answered. */
export interface Answers {
  readonly played: Played;
  /** F_GETSIG */
  readonly signum: number;
}
