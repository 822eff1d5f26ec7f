import type { vma_entry } from '../../image/schema/index.js';
import type { AddressRange } from '../contract.js';
import { PAGE, USER_END } from './vma.js';

const LOWEST = 0x10_0000n;

/**
 * A free range in the middle of the largest gap between the mappings of an image, where nothing will grow into it.
 * `task` is for messages.
 */
export function freeRange(
  vmas: readonly vma_entry[],
  workspace: AddressRange,
  size: bigint,
  task: string,
): bigint {
  const taken = vmas.map(({ start, end }) => ({ start, end }));
  taken.push({ start: workspace.address, end: workspace.address + workspace.size });
  taken.push({ start: USER_END, end: USER_END });
  taken.sort((a, b) => (a.start < b.start ? -1 : 1));
  let best = { start: 0n, size: 0n };
  let last = LOWEST;
  for (const { start, end } of taken) {
    if (start > USER_END) break;
    if (start - last > best.size) best = { start: last, size: start - last };
    if (end > last) last = end;
  }
  if (best.size < size + 2n * PAGE)
    throw new Error(`${task}: no room for ${size} bytes in its address space`);
  return (best.start + (best.size - size) / 2n) & ~(PAGE - 1n);
}
