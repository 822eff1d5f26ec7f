import type { Label, Space, Tape } from '../tape/tape.js';

/** Comparing and jumping on a tape, by system calls that do nothing else. */

const FUTEX_CMP_REQUEUE_PRIVATE = 4 | 128;

/** Go to `label` if the first four bytes of `space` are `value`: futex(2) moves no waiter, and answers 0 just then. */
export function goIfEqual(tape: Tape, space: Space, value: number, label: Label): void {
  tape.jump('futex', [space, FUTEX_CMP_REQUEUE_PRIVATE, 0, 0, space, value], label);
}

/** Go to `label` in any case. */
export function go(tape: Tape, label: Label): void {
  tape.jump('sched_yield', [], label);
}
