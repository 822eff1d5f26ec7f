import {
  MAP_ANONYMOUS,
  MAP_FIXED_NOREPLACE,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MAP_SHARED,
} from '../../abi/mman.js';
import { USER_END } from '../../tape/gap.js';
import type { Tape } from '../../tape/tape.js';
import type { AddressRange, ProcessImage } from '../contract.js';
import { isUring, keyOfMapped, mmOf } from './image-memory.js';
import { luggageAddress } from './stem-maps.js';
import type { Taken } from './taken.js';
import { placeOfVdso } from './vdso.js';
import { PAGE } from './vma.js';

/**
 * Mappings of an io_uring. The kernel lets nobody say where one is to lie, nor move it there (io_uring/memmap.c
 * io_uring_get_unmapped_area, EINVAL for every address but 0), so that is made the only place that is left: everything
 * free is filled, with memory that can be neither read nor written and costs nothing, until each ring has its place.
 */
export function mapUrings(image: ProcessImage, tape: Tape, taken: Taken, workspace: AddressRange): void {
  const { vmas } = mmOf(image);
  const rings = vmas.filter(isUring);
  if (rings.length === 0) return;
  tape.about('mappings of an io_uring');
  const fds = rings.map((ring) => taken.get(keyOfMapped(image.reader, ring)));
  const vdso = placeOfVdso(image, workspace);
  // The workspace, but for the hole that the vDSO left there.
  const luggage = luggageAddress(workspace);
  const others: Range[] = [
    ...vmas.filter((vma) => !isUring(vma)),
    vdso,
    { start: workspace.address, end: luggage },
    { start: luggage + vdso.end - vdso.start, end: workspace.address + workspace.size },
  ];
  const nothing = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
  for (const { start, end } of gapsBetween(others))
    tape.call('mmap', [start, end - start, 0, nothing, -1, 0], start < MIN_ADDRESS ? 'any' : start);
  rings.forEach(({ start, end, prot, pgoff }, index) => {
    tape.call('munmap', [start, end - start]);
    tape.call('mmap', [0, end - start, prot, MAP_SHARED, fds[index] ?? -1, pgoff], start);
  });
  for (const { start, end } of gapsBetween([...others, ...rings])) tape.call('munmap', [start, end - start]);
}

interface Range {
  readonly start: bigint;
  readonly end: bigint;
}

/** vm.mmap_min_addr: nobody gets a place below it who may not take one there (CAP_SYS_RAWIO). */
const MIN_ADDRESS = 0x1_0000n;

/** What is free, from the second page on: nobody has the first. */
function gapsBetween(taken: readonly Range[]): Range[] {
  const gaps: Range[] = [];
  let last = PAGE;
  const cuts = [MIN_ADDRESS, USER_END].map((at) => ({ start: at, end: at }));
  const inOrder = [...taken, ...cuts].sort((a, b) => (a.start < b.start ? -1 : 1));
  for (const { start, end } of inOrder) {
    if (last < start && start <= USER_END) gaps.push({ start: last, end: start });
    if (end > last) last = end;
  }
  return gaps;
}
