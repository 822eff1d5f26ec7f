import { ImageReader } from '../../image/index.js';
import { lastingLocks, lastingTable, unlock } from '../../resources/socket/lock.js';
import type { ParsedOptions } from '../requests.js';
import type { UnlockResult } from '../results.js';
import { inEveryNetwork } from './locks.js';

/**
 * Let the network go for connections that a checkpoint has left silent for their restore. Also for an image that is not
 * there any more: the table says which one it was for. In whatever network namespace the tree has lived.
 */
export function unlockImage({ directory, trust }: ParsedOptions<'unlock'>): UnlockResult {
  const runId = runIdOf(directory, trust);
  const tables = inEveryNetwork(() => {
    const marked = lastingLocks().filter((lock) => lock.directory === directory);
    const names = new Set(marked.map(({ table }) => table));
    if (runId !== '') names.add(lastingTable(runId));
    return [...names].filter(unlock);
  });
  return { directory, tables };
}

function runIdOf(directory: string, trust: boolean): string {
  try {
    using reader = ImageReader.open(directory, { trust });
    return reader.readOptional('inventory')?.[0]?.dumpCriuRunId ?? '';
  } catch {
    // Whatever is wrong with the image, its table may be known by its directory.
    return '';
  }
}
