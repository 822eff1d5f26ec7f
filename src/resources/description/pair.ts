import { F_DUPFD_CLOEXEC } from '../../abi/fcntl.js';
import type { Holder, Result } from '../contract.js';
import { FIRST_SLOT } from './holder.js';

/**
 * Two descriptors that a call writes to memory, where no later entry can read them: the numbers below the slots are
 * all free (closed first, should one have been left), so it is known that they are 0 and 1. Each is moved up once,
 * to have it as a result.
 */
export function freshPair(
  holder: Holder,
  make: (pair: ReturnType<Holder['tape']['space']>) => void,
): [Result, Result] {
  const { tape } = holder;
  tape.call('close_range', [0, FIRST_SLOT - 1, 0]);
  make(tape.space(8));
  const first = tape.call('fcntl', [0, F_DUPFD_CLOEXEC, 2]);
  const second = tape.call('fcntl', [1, F_DUPFD_CLOEXEC, 2]);
  tape.call('close', [0]);
  tape.call('close', [1]);
  return [first, second];
}
