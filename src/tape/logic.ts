import { FUTEX_CMP_REQUEUE } from '../abi/futex.js';
import type { Label, Space, Tape } from './tape.js';

/** Comparing and jumping on a tape, by system calls that do nothing else. */

const FUTEX_PRIVATE_FLAG = 128;
const FUTEX_CMP_REQUEUE_PRIVATE = FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG;

/** Go to `label` if the first four bytes of `space` are `value`: futex(2) moves no waiter, and answers 0 just then. */
export function goIfEqual(tape: Tape, space: Space, value: number, label: Label): void {
  tape.jump('futex', [space, FUTEX_CMP_REQUEUE_PRIVATE, 0, 0, space, value], label);
}

/** Fail here, with EAGAIN, unless the first four bytes of `space` are `value`. */
export function insistEqual(tape: Tape, space: Space, value: number): void {
  tape.call('futex', [space, FUTEX_CMP_REQUEUE_PRIVATE, 0, 0, space, value], 0);
}

/** Go to `label` in any case. */
export function go(tape: Tape, label: Label): void {
  tape.jump('sched_yield', [], label);
}
