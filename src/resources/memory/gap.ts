import type { vma_entry } from '../../image/schema/index.js';
import { freeRange, USER_END } from '../../tape/gap.js';
import type { AddressRange } from '../contract.js';

/** A free range between the mappings of an image and a workspace; `task` is for messages. */
export function freeRangeOf(
  vmas: readonly vma_entry[],
  workspace: AddressRange,
  size: bigint,
  task: string,
): bigint {
  const taken = vmas.map(({ start, end }) => ({ start, end }));
  taken.push({ start: workspace.address, end: workspace.address + workspace.size });
  taken.push({ start: USER_END, end: USER_END });
  taken.sort((a, b) => (a.start < b.start ? -1 : 1));
  const start = freeRange(taken, size);
  if (start === undefined) throw new Error(`${task}: no room for ${size} bytes in its address space`);
  return start;
}
