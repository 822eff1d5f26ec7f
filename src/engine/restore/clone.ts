import { cloneArguments } from '../../tape/clone.js';
import type { Tape } from '../../tape/tape.js';

/** Append clone3(2) with a chosen id; the new task is ours to trace (CLONE_PTRACE), and stops before its first instruction. */
export function clone(tape: Tape, tid: number, flags: number, exitSignal: number): void {
  tape.call('clone3', cloneArguments(tape, flags, { exitSignal, tid }), tid);
}
