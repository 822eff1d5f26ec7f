import type { MessageOf } from '../../image/index.js';
import type { Holder } from '../contract.js';
import { perRestore } from '../description/state.js';
import { lastingTable, unlock } from './lock.js';
import { removeCriuChains } from './lock-iptables.js';

/** What the dump has left locked is open when the tree goes on, also if its connections are not restored. */
export const unlockImage = perRestore((holder) => {
  const runId = inventoryOf(holder)?.dumpCriuRunId ?? '';
  const resume = (): void => {
    if (runId !== '') unlock(lastingTable(runId));
  };
  holder.around({ resume });
});

/** Of a tree that had a network namespace of its own, all of which may be silent, whether it had connections or not. */
export function unlockNetwork(holder: Holder): void {
  unlockImage(holder);
  if (isLockedByIptables(holder)) holder.around({ resume: () => removeCriuChains() });
}

/** How CRIU, but never we, makes connections silent. */
const IPTABLES = 0;

export function isLockedByIptables(holder: Holder): boolean {
  return inventoryOf(holder)?.networkLockMethod === IPTABLES;
}

function inventoryOf({ reader }: Holder): MessageOf<'inventory'> | undefined {
  return reader.readOptional('inventory')?.[0];
}
