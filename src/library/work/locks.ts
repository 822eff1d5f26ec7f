import { SyscallError } from '../../kernel/errors.js';
import { Network, networks, OWN_NETWORK } from '../../kernel/namespace.js';
import { unlessVanished } from '../../kernel/procfs/error.js';
import { readStat } from '../../kernel/procfs/stat.js';
import { type LockOwner, lastingLocks } from '../../resources/socket/lock.js';
import type { LastingLock } from '../results.js';

/**
 * What checkpoints have left silent, in this network namespace and in every other that can be found and entered: a tree
 * that lived in one of its own has left its lock there.
 */
export function locksEverywhere(): LastingLock[] {
  return inEveryNetwork((network) =>
    lastingLocks().map(({ table, owner }) => ({
      table,
      directory: owner?.directory ?? null,
      pid: owner?.pid ?? null,
      left_stopped: owner !== undefined && isLeftStopped(owner),
      network,
    })),
  );
}

/** Its tree is still there: about the source of a stream nobody has decided. */
export function isLeftStopped({ pid, starttime }: LockOwner): boolean {
  const stat = unlessVanished(() => readStat(pid));
  return stat?.starttime === starttime && stat.state === 'T';
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
