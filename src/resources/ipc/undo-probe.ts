import { ERRNO } from '../../abi/errno.js';
import { IPC_NOWAIT, SEM_UNDO } from '../../abi/ipc.js';
import type { Played, Tape } from '../contract.js';

/**
 * What semop(2) with SEM_UNDO would take back at the end of a task has no getter, but it can be asked for: the kernel
 * answers ERANGE when an operation would take the adjustment out of its 16 bits, and it looks at the operations of one
 * call in their order, under one lock, and takes all of them back when one of them cannot be done (ipc/sem.c
 * perform_atomic_semop). So a call whose last operation can never be done tells how far the adjustment is from its
 * limits, and changes nothing: neither a value, nor who was last, nor when, nor is anybody woken.
 */

export const SEMVMX = 32767;
/** Adjustments are −SEMAEM − 1 … SEMAEM. */
const SEMAEM = 32767;
/** No value is as large. */
const NEVER = -32768;

interface Operation {
  readonly number: number;
  readonly operation: number;
  readonly flags: number;
}

/** Operations that one semaphore takes in `differs`, and the last one. */
const EACH = 7;

/** How many semaphores one call can ask about, where calls may have `operations` of them. */
export function semaphoresPerCall(operations: number): number {
  return Math.floor((operations - 1) / EACH);
}

/** Is any adjustment of these semaphores, which have these values, other than 0? To be read by `isOutOfRange`. */
export function differs(values: readonly { readonly number: number; readonly value: number }[]): Uint8Array {
  const operations: Operation[] = [];
  for (const { number, value } of values)
    operations.push(
      ...plain(number, SEMVMX - value),
      // Above 0: the adjustment and SEMVMX are more than SEMAEM.
      ...undone(number, -SEMVMX, SEMVMX),
      ...plain(number, -SEMVMX),
      // Below 0.
      ...undone(number, SEMVMX),
      ...plain(number, -SEMVMX),
      ...undone(number, 1),
    );
  return encode([...operations, ...never(values[0]?.number ?? 0)]);
}

/** Is the adjustment of this semaphore greater than `limit`, −32768 … 32766? Answered by `isOutOfRange`, or its opposite. */
export function isGreater(
  number: number,
  value: number,
  limit: number,
): { readonly operations: Uint8Array; readonly outOfRangeMeans: boolean } {
  if (limit >= 0) {
    const operations = [
      ...plain(number, SEMVMX - value),
      ...undone(number, limit - SEMAEM),
      ...never(number),
    ];
    return { operations: encode(operations), outOfRangeMeans: true };
  }
  // Is it at most `limit`? Then so much more is less than −SEMAEM − 1.
  const more = SEMAEM + 2 + limit;
  const first = Math.min(more, SEMVMX);
  const operations = [
    ...plain(number, -value),
    ...undone(number, first),
    ...plain(number, -first),
    ...undone(number, more - first),
    ...never(number),
  ];
  return { operations: encode(operations), outOfRangeMeans: false };
}

function plain(number: number, operation: number): Operation[] {
  return operation === 0 ? [] : [{ number, operation, flags: IPC_NOWAIT }];
}

function undone(number: number, ...operations: readonly number[]): Operation[] {
  return operations
    .filter((operation) => operation !== 0)
    .map((operation) => ({ number, operation, flags: SEM_UNDO | IPC_NOWAIT }));
}

function never(number: number): Operation[] {
  return [{ number, operation: NEVER, flags: IPC_NOWAIT }];
}

/** struct sembuf, packed: three 16-bit numbers. */
function encode(operations: readonly Operation[]): Uint8Array {
  const bytes = new Uint8Array(operations.length * SEMBUF);
  const view = new DataView(bytes.buffer);
  operations.forEach(({ number, operation, flags }, index) => {
    view.setUint16(index * SEMBUF, number, true);
    view.setInt16(index * SEMBUF + 2, operation, true);
    view.setInt16(index * SEMBUF + 4, flags, true);
  });
  return bytes;
}

const SEMBUF = 6;

/**
 * What would be added to a semaphore. With a third number it is one whose value the kernel has cut off at 0 or SEMVMX
 * when it was added: then the value does not say what it was, and that number makes it so.
 */
export type Adjustment = readonly [number: number, by: number, correction?: number];

/** What adjustments are made by, on the tape of a task that has none: values change by as much the other way. */
export function adjusting(adjustments: readonly Adjustment[]): Uint8Array {
  return encode(
    adjustments.flatMap(([number, by, correction]) => {
      // −32768 takes two steps.
      const steps = by === NEVER ? [SEMVMX, 1] : [-by];
      if (correction === undefined) return undone(number, ...steps);
      const neutral = steps.flatMap((step) => [...undone(number, step), ...plain(number, -step)]);
      return [...neutral, ...plain(number, correction)];
    }),
  );
}

/** A question on a tape. */
export function ask(tape: Tape, set: number, operations: Uint8Array): (played: Played) => bigint {
  const result = tape.call('semop', [set, tape.space(operations), operations.length / SEMBUF], 'any');
  return (played) => played.result(result);
}

/**
 * EAGAIN: all but the last operation could be done. Undefined where there is no answer: the set is gone, or the task
 * has no right to it.
 */
export function isOutOfRange(answer: bigint): boolean | undefined {
  if (answer === BigInt(-ERRNO.ERANGE)) return true;
  if (answer === BigInt(-ERRNO.EAGAIN)) return false;
  return undefined;
}
