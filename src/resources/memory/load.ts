import { MADV_DONTNEED, PROT_READ, PROT_WRITE } from '../../abi/mman.js';
import type { vma_entry } from '../../image/schema/index.js';
import { USER_END } from '../../tape/gap.js';
import type { Tape } from '../../tape/tape.js';
import type { AddressRange, ProcessImage, StemMaps, Taker } from '../contract.js';
import { isEarly, mmOf, spanOfEntry } from './image-memory.js';
import { compare, cut, cutting, type Difference, inherit, loadedOf } from './inherit.js';
import { mapVma } from './map.js';
import { readTogether } from './read-together.js';
import { eachRunOfProcess, readRunsTo, runsOfProcess } from './runs.js';
import type { Span } from './scan.js';
import { sharedWith } from './shared-pages.js';
import { KernelMaps } from './stem-maps.js';
import { Taken } from './taken.js';
import { needsProxy } from './vdso.js';
import { VMA } from './vma.js';

/** Mappings that a process was born with, for `finish`. */
const born = new WeakMap<ProcessImage, ReadonlySet<vma_entry>>();

/** What of private memory is made before children are forked; those find it in place. */
export function loadMemory(
  image: ProcessImage,
  tape: Tape,
  taker: Taker,
  workspace: AddressRange,
  origin: StemMaps | ProcessImage | undefined,
): void {
  if (origin instanceof KernelMaps) origin.pack(tape, workspace);
  const source = origin !== undefined && 'reader' in origin ? origin : undefined;
  const vmas = earlyVmas(image);
  const { kept, inherited, grow } = inherit(vmas, source, source === undefined ? [] : earlyVmas(source));
  born.set(image, inherited);
  const spans = vmas.map(spanOfEntry);
  const difference: Difference =
    source === undefined
      ? { load: again(() => cutting(eachRunOfProcess(image), spans)), drop: [] }
      : compare(
          cut(runsOfProcess(image), spans),
          cut(runsOfProcess(source), kept),
          sharedWith(image, source),
        );
  clear(tape, workspace, kept);
  for (const { start, end } of difference.drop) tape.call('madvise', [start, end - start, MADV_DONTNEED]);
  for (const { from, to } of grow)
    tape.call('mremap', [from.start, from.end - from.start, to.end - to.start, 0, 0], from.start);
  const taken = new Taken(tape, taker);
  tape.about('private memory');
  const loaded = loadedOf(image);
  for (const vma of vmas) {
    if (inherited.has(vma)) continue;
    mapVma(tape, taken, image.reader, vma, loaded.has(vma) ? vma.prot | PROT_READ | PROT_WRITE : vma.prot);
  }
  tape.about('contents of private memory');
  // Nobody of the tree is born while the root reads, so that a helper cannot have the number of one.
  const isRoot = source === undefined && image.parent === undefined;
  if (isRoot) readTogether(tape, image.pid, difference.load, taken.pagesOf(image.reader));
  else readRunsTo(tape, difference.load, taken.pagesOf(image.reader));
  taken.close();
  tape.about(undefined);
}

/** Iterated from the beginning each time. */
function again<T>(begin: () => Iterator<T>): Iterable<T> {
  return { [Symbol.iterator]: begin };
}

/** An old vDSO that the running kernel's cannot stand in for is private memory like any other. */
export function earlyVmas(image: ProcessImage): vma_entry[] {
  const asMemory = needsProxy(image);
  return mmOf(image).vmas.filter((vma) => isEarly(vma) || (asMemory && (vma.status & VMA.VDSO) !== 0));
}

export function inheritedBy(image: ProcessImage): ReadonlySet<vma_entry> {
  return born.get(image) ?? new Set();
}

/** Everything goes but the workspace and what is kept of the parent's. */
function clear(tape: Tape, workspace: AddressRange, kept: readonly Span[]): void {
  tape.about("the parent's and the stem's memory");
  const start = Number(workspace.address);
  const end = start + Number(workspace.size);
  const spans = [...kept, { start, end }].sort((a, b) => a.start - b.start);
  let from = 0;
  for (const span of [...spans, { start: Number(USER_END), end: Number(USER_END) }]) {
    if (span.start > from) tape.call('munmap', [from, span.start - from]);
    from = Math.max(from, span.end);
  }
}
