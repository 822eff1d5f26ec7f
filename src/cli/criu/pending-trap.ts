import { SIGTRAP, signalBit } from '../../abi/signal.js';
import { unlessVanished } from '../../kernel/procfs/error.js';
import { readStatus } from '../../kernel/procfs/status.js';
import { readTree } from '../../kernel/procfs/tree.js';
import { CriuError } from './session.js';

/**
 * CRIU refuses a thread with a pending SIGTRAP, and its callers rely on what it refuses. Stasis has no such limit:
 * `stasis checkpoint` saves it.
 */
export function refusePendingTraps(root: number): void {
  for (const { pid, tids } of readTree(root))
    for (const tid of tids) {
      const status = unlessVanished(() => readStatus(pid, { tid }));
      if (status !== undefined && ((status.sigPnd | status.shdPnd) & signalBit(SIGTRAP)) !== 0n)
        throw new CriuError(
          'dump',
          `Thread ${tid} has a pending SIGTRAP, which criu does not dump (stasis checkpoint does)`,
        );
    }
}
