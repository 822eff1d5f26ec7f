import { allDescriptors, isOpenOn } from '../../kernel/procfs/descriptors.js';
import type { Descriptor } from '../contract.js';
import { treeOf } from './tree.js';

/** A process outside of the tree that has a file open as well, one with an inode of its own, as this process sees it; undefined where there is none. */
export function outsiderOf({ process: member, info }: Descriptor): number | undefined {
  const tree = new Set([process.pid, ...treeOf(member).map(({ pid }) => pid)]);
  for (const [pid, fds] of allDescriptors(tree))
    if (fds.some((fd) => isOpenOn(pid, fd, info.stat))) return pid;
  return undefined;
}
