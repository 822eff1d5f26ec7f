import { LOCK_EX, LOCK_NB, LOCK_SH } from '../../abi/fcntl.js';
import * as M from '../../abi/mman.js';
import type { ImageReader } from '../../image/reader.js';
import type { vma_entry } from '../../image/schema/index.js';
import type { Tape } from '../../tape/tape.js';
import type { ProcessImage } from '../contract.js';
import { keyOfMappedLock, readMappedLocks } from '../description/mapped-locks.js';
import { keyOfMapped } from './image-memory.js';
import type { Span } from './scan.js';
import type { Taken } from './taken.js';
import { VMA } from './vma.js';

/** Flags of mmap(2) that make a mapping what it was; locks and advice come later, huge pages only by flag. */
const KEPT_FLAGS =
  M.MAP_PRIVATE | M.MAP_SHARED | M.MAP_DROPPABLE | M.MAP_ANONYMOUS | M.MAP_GROWSDOWN | M.MAP_NORESERVE;
const HUGE_FLAGS = M.MAP_HUGETLB | (M.MAP_HUGE_MASK << M.MAP_HUGE_SHIFT);

function hasFile({ status }: vma_entry): boolean {
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

/** The lock that is held by nothing but this mapping's description, which this process took (fs/locks.c flc_pid). */
export function lockMapped({ pid, reader }: ProcessImage, vma: vma_entry, tape: Tape, taken: Taken): void {
  const type = readMappedLocks(reader).get(keyOfMappedLock(pid, vma.start));
  if (type === undefined) return;
  tape.about('lock of a mapped file');
  const operation = ((type === 'READ' ? LOCK_SH : LOCK_EX) | LOCK_NB) >>> 0;
  tape.call('flock', [taken.get(keyOfMapped(reader, vma)), operation]);
  tape.about('shared mappings');
}
