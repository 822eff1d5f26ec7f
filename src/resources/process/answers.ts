import type { SyscallName } from '../../abi/syscalls.js';
import { SyscallError } from '../../kernel/errors.js';
import { nameOf, type Thread } from '../contract.js';

/** What a call of an inquiry has answered that must succeed. Throws SyscallError. */
export function answerOf(name: SyscallName, result: number | undefined, thread: Thread): number {
  if (result === undefined) throw new Error(`${name} was not asked about ${nameOf(thread)}`);
  if (result < 0) throw new SyscallError(name, -result, nameOf(thread));
  return result;
}
