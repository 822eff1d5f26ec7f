import { readdirSync, statSync } from 'node:fs';
import { listDescriptors } from '../../kernel/procfs/descriptors.js';
import type { Descriptor, DescriptorInfo } from '../contract.js';
import { treeOf } from './tree.js';

/** A process outside of the tree that has a file open as well, one with an inode of its own, as this process sees it; undefined where there is none. */
export function outsiderOf({ process: member, info }: Descriptor): number | undefined {
  const tree = new Set(treeOf(member).map(({ pid }) => pid));
  for (const name of readdirSync('/proc')) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || tree.has(pid) || pid === process.pid) continue;
    if (hasOpen(pid, info)) return pid;
  }
  return undefined;
}

function hasOpen(pid: number, { stat }: DescriptorInfo): boolean {
  try {
    return listDescriptors(pid).some((fd) => {
      const other = statSync(`/proc/${pid}/fd/${fd}`, { bigint: true, throwIfNoEntry: false });
      return other?.ino === stat.ino && other.dev === stat.dev;
    });
  } catch {
    // It is ending, or not to be looked at.
    return false;
  }
}
