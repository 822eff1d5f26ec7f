import * as M from '../../abi/mman.js';
import type { ImageReader } from '../../image/reader.js';
import type { vma_entry } from '../../image/schema/index.js';
import type { Tape } from '../../tape/tape.js';
import { keyOfMapped } from './image-memory.js';
import type { Span } from './scan.js';
import type { Taken } from './taken.js';
import { VMA } from './vma.js';

/** Flags of mmap(2) that make a mapping what it was; locks and advice come later, huge pages only by flag. */
const KEPT_FLAGS =
  M.MAP_PRIVATE | M.MAP_SHARED | M.MAP_DROPPABLE | M.MAP_ANONYMOUS | M.MAP_GROWSDOWN | M.MAP_NORESERVE;
const HUGE_FLAGS = M.MAP_HUGETLB | (M.MAP_HUGE_MASK << M.MAP_HUGE_SHIFT);

export function hasFile({ status }: vma_entry): boolean {
  return (status & (VMA.FILE_PRIVATE | VMA.FILE_SHARED | VMA.ANON_SHARED | VMA.SOCKET)) !== 0;
}

/** Entries for one mapping, or a part of it, at its final place. */
export function mapVma(
  tape: Tape,
  taken: Taken,
  reader: ImageReader,
  vma: vma_entry,
  prot: number,
  part: Span = { start: Number(vma.start), end: Number(vma.end) },
): void {
  const file = hasFile(vma);
  const kept = file ? KEPT_FLAGS & ~M.MAP_ANONYMOUS : KEPT_FLAGS | HUGE_FLAGS;
  const flags = ((vma.flags & kept) | M.MAP_FIXED) >>> 0;
  const start = BigInt(part.start);
  const fd = file ? taken.get(keyOfMapped(reader, vma)) : -1;
  const offset = file ? vma.pgoff + start - vma.start : 0n;
  tape.call('mmap', [start, BigInt(part.end) - start, prot, flags, fd, offset], start);
}
