import { SIGCONT, SIGKILL } from '../abi/signal.js';
import { unlessVanished } from '../kernel/procfs/error.js';
import { readStat } from '../kernel/procfs/stat.js';
import { readTree, type TreeProcess } from '../kernel/procfs/tree.js';
import { attempt } from '../kernel/syscall.js';
import { endRepairsOf } from '../resources/socket/tcp-silence.js';

/**
 * The source of a stream whose other end did not say whether the tree runs there (commitment-stream.ts): it is whole, and
 * stopped, and its connections are silent and in repair mode, so that whoever kills it says nothing to their peers.
 * Somebody has looked at the other end, and decides.
 */
const STOPPED = 'T';
const ENDED = new Set(['Z', 'X']);

/** Parents first. @throws where anybody of the tree runs: it is no such source, or somebody has decided already */
export function stoppedTree(root: number): readonly TreeProcess[] {
  const tree = readTree(root);
  for (const { pid, tids } of tree)
    for (const tid of tids) {
      const stat = unlessVanished(() => readStat(pid, { tid }));
      if (stat !== undefined && stat.state !== STOPPED && !ENDED.has(stat.state))
        throw new Error(
          `pid ${pid} (${stat.comm}) is not stopped (state ${stat.state}): pid ${root} is not the root of a tree that a stream has left stopped`,
        );
    }
  return tree;
}

/** It does not run at the other end. Its connections are not locked any more. Answers how many there were. */
export function resumeTree(tree: readonly TreeProcess[]): number {
  const connections = tree.map(({ pid }) => unlessVanished(() => endRepairsOf(pid)) ?? 0);
  for (const { pid } of tree) attempt('kill', [pid, SIGCONT]);
  return connections.reduce((sum, count) => sum + count, 0);
}

/** It runs at the other end. Children first: a stopped one whose parent has gone could be continued (SIGHUP, SIGCONT). */
export function killTree(tree: readonly TreeProcess[]): void {
  for (const { pid } of tree.toReversed()) attempt('kill', [pid, SIGKILL]);
}
