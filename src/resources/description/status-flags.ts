import { F_SETFL, O_APPEND, O_ASYNC, O_DIRECT, O_NOATIME, O_NONBLOCK } from '../../abi/fcntl.js';
import type { Result, Tape } from '../contract.js';

/** What F_SETFL can change (fs/fcntl.c SETFL_MASK). */
export const SETTABLE = O_APPEND | O_NONBLOCK | O_ASYNC | O_DIRECT | O_NOATIME;

/** Give a description the settable ones of `flags`; it has none of them when it was just made without. */
export function setStatusFlags(tape: Tape, fd: Result | number, flags: number): void {
  const wanted = flags & SETTABLE;
  if (wanted !== 0) tape.call('fcntl', [fd, F_SETFL, wanted]);
}
