import { LOOP } from '../machine/x86_64.js';

/**
 * How a workspace lies in a task's memory: the loop once, then slices. Each slice belongs to one task, and holds a
 * header, the entries of the tape that the task plays, and their buffers. machine/x86_64.ts reads these layouts.
 */
export const CODE_SIZE = 512;
export const HEADER_SIZE = 96;
export const ENTRY_SIZE = 80;
export const PAGE_SIZE = 4096;

if (LOOP.length > CODE_SIZE) throw new Error('the loop has outgrown its room');

export const HEADER = {
  stopCall: 0,
  stopArguments: 8,
  tail: 32,
  leaveCall: 40,
  leaveArguments: 48,
  leaveTo: 64,
  leaveStack: 72,
  stoppedAt: 80,
} as const;

export const ENTRY = { call: 0, arguments: 8, flags: 56, result: 64, expected: 72 } as const;

/** Low six bits: argument n is the address of its value. */
export const FLAG_MAY_FAIL = 0x100;
export const FLAG_EXACT = 0x200;
export const FLAG_BRANCH_ON_ZERO = 0x400;

/** Entries that are no system calls. */
export const OP_END = -1n;
export const OP_COPY = -2n;
export const OP_LEAVE = -3n;

/** What a result cell holds before its entry was played; closing descriptor −1 is harmless. */
export const NOT_PLAYED = -1n;

/** Memory of a task in which it can play tapes. `code` is the address of the loop. */
export interface Slice {
  readonly code: bigint;
  readonly address: bigint;
  readonly size: number;
}
