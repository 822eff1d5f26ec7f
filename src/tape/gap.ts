import { PAGE_SIZE } from '../abi/mman.js';

const PAGE = BigInt(PAGE_SIZE);

/** Under it lies what mmap_min_addr keeps free, and programs that are linked low. */
const LOWEST = 0x10_0000n;

/** End of the user's address space with four levels of page tables. */
export const USER_END = 0x7fff_ffff_f000n;

/**
 * A free range in the middle of the largest gap between `taken`, which is in order, where neither heap nor stack
 * grows into it; undefined where that gap has no room for `size` bytes and a page on either side.
 */
export function freeRange(
  taken: Iterable<{ readonly start: bigint; readonly end: bigint }>,
  size: bigint,
): bigint | undefined {
  let best = { start: 0n, size: 0n };
  let last = LOWEST;
  for (const { start, end } of taken) {
    if (start > USER_END) break;
    if (start - last > best.size) best = { start: last, size: start - last };
    if (end > last) last = end;
  }
  if (best.size < size + 2n * PAGE) return undefined;
  return (best.start + (best.size - size) / 2n) & ~(PAGE - 1n);
}
