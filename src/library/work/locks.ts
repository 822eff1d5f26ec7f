import { SyscallError } from '../../kernel/errors.js';
import { Network, networks, OWN_NETWORK } from '../../kernel/namespace.js';
import { lastingLocks } from '../../resources/socket/lock.js';
import type { LastingLock } from '../results.js';

/**
 * What checkpoints have left silent, in this network namespace and in every other that can be found and entered: a tree
 * that lived in one of its own has left its lock there.
 */
export function locksEverywhere(): LastingLock[] {
  return inEveryNetwork((network) => lastingLocks().map((lock) => ({ ...lock, network })));
}

/** Do something in each network namespace there is; its path, null in our own. */
export function inEveryNetwork<T>(step: (network: string | null) => readonly T[]): T[] {
  using own = Network.enter(OWN_NETWORK);
  const others = [...networks()].filter(([inode]) => inode !== own.inode);
  return [...step(null), ...others.flatMap(([, path]) => visit(path, step))];
}

/** One that has vanished, or is not ours to enter, has nothing of ours. */
function visit<T>(path: string, step: (network: string) => readonly T[]): readonly T[] {
  let entered: Network;
  try {
    entered = Network.enter(path);
  } catch (error) {
    if (error instanceof SyscallError) return [];
    throw error;
  }
  using _ = entered;
  return step(path);
}
