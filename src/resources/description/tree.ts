import type { Process } from '../contract.js';

/** All processes of the tree that one is of, parents first; zombies have nothing open, and are left out. */
export function treeOf(member: Process): Process[] {
  let root = member;
  while (root.parent !== undefined) root = root.parent;
  const all: Process[] = [];
  const visit = (process: Process): void => {
    if (process.state !== 'zombie') all.push(process);
    process.children.forEach(visit);
  };
  visit(root);
  return all;
}
