import { FUTEX_CMP_REQUEUE, FUTEX_PRIVATE_FLAG, FUTEX_WAKE, FUTEX_WAKE_OP } from '../abi/futex.js';
import { words } from '../kernel/words.js';
import type { Label, Operand, Result, Tape, Value } from './tape.js';

/** Comparing, counting and jumping on a tape, by system calls that do nothing else. Addresses are of four bytes. */

const FUTEX_CMP_REQUEUE_PRIVATE = FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG;
const FUTEX_WAKE_PRIVATE = FUTEX_WAKE | FUTEX_PRIVATE_FLAG;
const FUTEX_WAKE_OP_PRIVATE = FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG;

/** Go to `label` if what lies at `address` is `value`: futex(2) moves no waiter, and answers 0 just then. */
export function goIfEqual(tape: Tape, address: Operand, value: number, label: Label): void {
  tape.jump('futex', [address, FUTEX_CMP_REQUEUE_PRIVATE, 0, 0, address, value], label);
}

/** Fail here, with EAGAIN, unless what lies at `address` is `value`. */
export function insistEqual(tape: Tape, address: Operand, value: number): void {
  tape.call('futex', [address, FUTEX_CMP_REQUEUE_PRIVATE, 0, 0, address, value], 0);
}

/** Go to `label` in any case; others have a turn before. */
export function go(tape: Tape, label: Label): void {
  tape.jump('sched_yield', [], label);
}

const FUTEX_OP_ADD = 1;
const FUTEX_OP_OPARG_SHIFT = 8;

/** Add to what lies at `address`: a power of two, or a number of −2048 to 2047 (FUTEX_OP(3const)); nobody is woken. */
export function addTo(tape: Tape, address: Operand, amount: number): void {
  const power = Math.log2(amount);
  const isPower = Number.isInteger(power);
  if (!isPower && (amount < -2048 || amount > 2047)) throw new RangeError(`${amount} cannot be added`);
  const operation = FUTEX_OP_ADD | (isPower ? FUTEX_OP_OPARG_SHIFT : 0);
  const argument = (isPower ? power : amount) & 0xfff;
  const word = ((operation << 28) | (argument << 12)) >>> 0;
  tape.call('futex', [address, FUTEX_WAKE_OP_PRIVATE, 0, 0, address, word], 0);
}

/** Play what `body` appends so many times. */
export function repeat(tape: Tape, times: number, body: () => void): void {
  if (times === 0) return;
  const left = tape.space(words([times]));
  const top = tape.label();
  const done = tape.label();
  tape.place(top);
  body();
  addTo(tape, left, -1);
  goIfEqual(tape, left, 0, done);
  // Nobody waits there, so it answers 0; unlike `go`, it gives no turn away.
  tape.jump('futex', [left, FUTEX_WAKE_PRIVATE, 0, 0, 0, 0], top);
  tape.place(done);
}

/** The address `offset` bytes behind a result that is the start of a page, on the same page. */
export function addressIn(tape: Tape, page: Result, offset: number): Value {
  const space = tape.space(8);
  tape.copy(page, space, 0, 8);
  if (offset > 0) addTo(tape, space, offset);
  return { kind: 'value', at: { kind: 'inside', space, at: 0 } };
}
