import { ImageReader } from '../../image/index.js';
import { lastingLocks, lastingTable, unlock } from '../../resources/socket/lock.js';
import type { ParsedOptions } from '../requests.js';
import type { UnlockResult } from '../results.js';

/**
 * Let the network go for connections that a checkpoint has left silent for their restore. Also for an image that is not
 * there any more: the table says which one it was for.
 */
export function unlockImage({ directory, trust }: ParsedOptions<'unlock'>): UnlockResult {
  const names = new Set(
    lastingLocks()
      .filter((lock) => lock.directory === directory)
      .map(({ table }) => table),
  );
  const runId = runIdOf(directory, trust);
  if (runId !== '') names.add(lastingTable(runId));
  return { directory, tables: [...names].filter(unlock) };
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
