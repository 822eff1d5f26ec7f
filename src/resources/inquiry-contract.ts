import type { Answers, Ask } from '../kernel/together.js';
import type { DumpContext, Thread } from './contract.js';

export type { Answers, Ask } from '../kernel/together.js';

/** Frozen: calls about a thread from outside. None may depend on what another answers. */
export interface Inquiry {
  /** Bytes for what they take and answer, zeroed. */
  readonly room: number;
  /** `at` is the address of the room. */
  put(ask: Ask, thread: Thread, at: number): void;
  /** What they answered; frozen no more, perhaps. */
  read(answers: Answers, thread: Thread, context: DumpContext): void;
}
