import { killTree, resumeTree, stoppedTree } from '../../engine/undecided.js';
import { ImageReader } from '../../image/index.js';
import { lastingLocks, lastingTable, unlock } from '../../resources/socket/lock.js';
import type { ParsedOptions } from '../requests.js';
import type { UnlockResult } from '../results.js';
import { inEveryNetwork, isLeftStopped } from './locks.js';
import { assertProcess } from './process.js';

/**
 * Let the network go for connections that a checkpoint has left silent: those of an image, or of a stream's source, about
 * which has to be decided first if it was left stopped. In whatever network namespace the tree has lived.
 */
export function unlockTree(options: ParsedOptions<'unlock'>): UnlockResult {
  const { directory, pid, decision, trust } = options;
  if ((directory === undefined) === (pid === undefined))
    throw new TypeError('either an image is unlocked, or the tree of a pid');
  if (decision !== undefined && pid === undefined)
    throw new TypeError('only about a tree that was left stopped can be decided: give its pid');
  const nobody = { directory: null, pid: null, processes: 0, connections: 0 };
  if (directory !== undefined) return { ...nobody, directory, tables: unlockImage(directory, trust) };
  if (pid === undefined) return { ...nobody, tables: [] };
  return { ...nobody, pid, ...(decision === undefined ? unlockGone(pid) : decide(pid, decision)) };
}

/** Also an image that is not there any more: the table says which one it was for. */
function unlockImage(directory: string, trust: boolean): string[] {
  const runId = runIdOf(directory, trust);
  return inEveryNetwork(() => {
    const marked = lastingLocks().filter(({ owner }) => owner?.directory === directory);
    const names = new Set(marked.map(({ table }) => table));
    if (runId !== '') names.add(lastingTable(runId));
    return [...names].filter(unlock);
  });
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

/** A source that was killed; who has its pid now has nothing to do with it. */
function unlockGone(pid: number): Pick<UnlockResult, 'tables'> {
  const tables = inEveryNetwork(() => {
    const locks = lastingLocks().filter(({ owner }) => owner?.pid === pid);
    if (locks.some(({ owner }) => owner !== undefined && isLeftStopped(owner)))
      throw new Error(
        `pid ${pid} was left stopped by a checkpoint whose other end did not say whether the tree runs there. Look there: ` +
          'if it does, kill this one (--kill), which its peers do not notice; otherwise let it go on (--resume)',
      );
    return locks.map(({ table }) => table).filter(unlock);
  });
  return { tables };
}

type Decided = Pick<UnlockResult, 'processes' | 'connections' | 'tables'>;

/** Whoever was killed leaves its lock: what still comes in for its connections is not answered that nobody is here. */
function decide(pid: number, decision: 'resume' | 'kill'): Decided {
  assertProcess(pid);
  const tree = stoppedTree(pid);
  const processes = tree.length;
  if (decision === 'kill') {
    killTree(tree);
    return { processes, connections: 0, tables: [] };
  }
  // Before repair mode ends, which asks peers for news (net/ipv4/tcp.c tcp_send_window_probe).
  const tables = inEveryNetwork(() =>
    lastingLocks()
      .filter(({ owner }) => owner?.pid === pid && isLeftStopped(owner))
      .map(({ table }) => table)
      .filter(unlock),
  );
  return { processes, connections: resumeTree(tree), tables };
}
