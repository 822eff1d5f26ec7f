import type { file_entry } from '../image/schema/index.js';
import type { Played } from '../tape/tape.js';
import type { Descriptor, DumpContext } from './contract.js';

/**
 * A survey of descriptors: what a few system calls of this process tell of each is put on one tape while the tree runs, and
 * asked as soon as it stands still. The answers are read, and entries made of them, when it goes on.
 */
export interface Questions {
  /** Frozen, in a hurry: do the answers say all? Where not, the descriptor is dumped as if nothing had been asked. */
  suffice(answers: Answers): boolean;
  /** As `FileKind.dump`, of a descriptor whose owner is nobody. The tree may go on already. */
  dump(descriptor: Descriptor, id: number, answers: Answers, context: DumpContext): file_entry;
}

/** What a descriptor answered. */
export interface Answers {
  readonly played: Played;
  /** F_GETSIG */
  readonly signum: number;
  /** Is this ASCII text in its fdinfo? */
  shows(text: string): boolean;
}
