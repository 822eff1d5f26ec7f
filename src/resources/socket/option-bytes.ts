import { SyscallError } from '../../kernel/errors.js';
import { scratch } from '../../kernel/memory.js';
import { attempt, syscall } from '../../kernel/syscall.js';
import { words } from '../../kernel/words.js';
import type { Result, Tape } from '../contract.js';
import { ABSENT } from './option-batch.js';

/** getsockopt(2) on a duplicate, setsockopt(2) on tapes. Options are numbers of four bytes unless said otherwise. */

const LENGTH_AT = 8192;
/** An option's bytes; undefined where this kind of socket has none of that name. */
export function getBytes(fd: number, level: number, option: number, length: number): Uint8Array | undefined {
  const got = getInto(fd, level, option, length);
  return got === undefined ? undefined : scratch.bytes.slice(0, got);
}

export function getNumber(fd: number, level: number, option: number): number | undefined {
  return getInto(fd, level, option, 4) === 4 ? scratch.view.getInt32(0, true) : undefined;
}

/** Numbers are quicker to pass than bigints, and there are dozens of options for each of many sockets. */
const VALUE = Number(scratch.address);
const LENGTH = VALUE + LENGTH_AT;

function getInto(fd: number, level: number, option: number, length: number): number | undefined {
  if (length > LENGTH_AT) throw new RangeError(`an option of ${length} bytes`);
  scratch.view.setUint32(LENGTH_AT, length, true);
  const result = attempt('getsockopt', [fd, level, option, VALUE, LENGTH]);
  if (result >= 0) return scratch.view.getUint32(LENGTH_AT, true);
  if (ABSENT.has(result)) return undefined;
  throw new SyscallError('getsockopt', -result, `option ${option} of level ${level}`);
}

/** On a duplicate, at once. Throws SyscallError. */
export function setNow(fd: number, level: number, option: number, value: number): void {
  scratch.view.setInt32(0, value, true);
  syscall('setsockopt', [fd, level, option, VALUE, 4], `option ${option} of level ${level}`);
}

/** `mayFail`: for what is only a hint to the kernel, and not to be had everywhere. */
export function setBytes(
  tape: Tape,
  fd: Result | number,
  level: number,
  option: number,
  bytes: Uint8Array,
  mayFail = false,
): void {
  const space = tape.space(bytes);
  tape.call('setsockopt', [fd, level, option, space, bytes.length], mayFail ? 'any' : 'success');
}

export function setNumber(
  tape: Tape,
  fd: Result | number,
  level: number,
  option: number,
  value: number,
  mayFail = false,
): void {
  setBytes(tape, fd, level, option, words([value]), mayFail);
}
