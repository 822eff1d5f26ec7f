import { MAP_ANONYMOUS, MAP_GROWSDOWN, MAP_NORESERVE } from '../../abi/mman.js';
import type { vma_entry } from '../../image/schema/index.js';
import type { ProcessImage } from '../contract.js';
import { differing } from './differing.js';
import { isGuard, mmOf, spanOfEntry } from './image-memory.js';
import { eachRunOfProcess, partOf, type Run } from './runs.js';
import type { Span } from './scan.js';
import { VMA } from './vma.js';

/**
 * Copy-on-write sharing between a process and its parent: a child is forked when its parent's private memory is in
 * place, and keeps the mappings that both have, and the pages of them that they share. CRIU's images do not say which
 * those are; then, as CRIU does, what is equal is shared: pages whose contents the image has twice alike.
 */
export interface Inheritance {
  /** Mappings of the child that are there already. */
  readonly inherited: ReadonlySet<vma_entry>;
  /** What is not unmapped, ascending. */
  readonly kept: readonly Span[];
  /** Mappings that became longer since the fork. */
  readonly grow: readonly { readonly from: Span; readonly to: Span }[];
}

/** What a child finds of its own mappings (ascending) in those of its parent. */
export function inherit(
  vmas: readonly vma_entry[],
  parent: ProcessImage | undefined,
  parentVmas: readonly vma_entry[],
): Inheritance {
  const inherited = new Set<vma_entry>();
  const kept: Span[] = [];
  const grow: { from: Span; to: Span }[] = [];
  if (parent === undefined) return { inherited, kept, grow };
  // Without pages of the parent's there is nothing to share, and it may not be writable.
  const loaded = loadedOf(parent);
  const sources = parentVmas.filter((vma) => loaded.has(vma));
  let at = 0;
  for (const vma of vmas) {
    const span = spanOfEntry(vma);
    while (at < sources.length && Number(sources[at]?.end ?? 0n) <= span.start) at++;
    const from = sources[at];
    if (from === undefined || from.start > vma.start || !isSameMemory(vma, from)) continue;
    const there = { start: span.start, end: Math.min(span.end, Number(from.end)) };
    inherited.add(vma);
    kept.push(there);
    if (there.end < span.end) grow.push({ from: there, to: span });
  }
  return { inherited, kept, grow };
}

const loaded = new WeakMap<ProcessImage, ReadonlySet<vma_entry>>();

/** The mappings that have pages in the image. */
export function loadedOf(image: ProcessImage): ReadonlySet<vma_entry> {
  const known = loaded.get(image) ?? findLoaded(image);
  loaded.set(image, known);
  return known;
}

/** Mappings and runs are ascending, but for guard regions, which are no mappings. */
function findLoaded(image: ProcessImage): Set<vma_entry> {
  const found = new Set<vma_entry>();
  const vmas = mmOf(image).vmas.filter((vma) => !isGuard(vma));
  const spans = vmas.map(spanOfEntry);
  let at = 0;
  for (const { start, end } of eachRunOfProcess(image)) {
    while (at < spans.length && (spans[at]?.end ?? 0) <= start) at++;
    for (let index = at; (spans[index]?.start ?? end) < end; index++) {
      const vma = vmas[index];
      if (vma !== undefined) found.add(vma);
    }
  }
  return found;
}

const SAME_FLAGS = MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_NORESERVE;

/** Could it be a piece of the same mapping, before one of both changed? */
function isSameMemory(vma: vma_entry, other: vma_entry): boolean {
  if (((vma.flags ^ other.flags) & SAME_FLAGS) !== 0) return false;
  const file = vma.status & VMA.FILE_PRIVATE;
  if (file !== (other.status & VMA.FILE_PRIVATE)) return false;
  return file === 0 || (vma.shmid === other.shmid && vma.pgoff - vma.start === other.pgoff - other.start);
}

/** The parts of ascending runs that lie in ascending spans. */
export function cut(runs: Iterable<Run>, spans: readonly Span[]): Run[] {
  return [...cutting(runs, spans)];
}

/** The same, one after the other. */
export function* cutting(runs: Iterable<Run>, spans: readonly Span[]): Generator<Run> {
  let from = 0;
  for (const run of runs) {
    const { start, end } = run;
    while (from < spans.length && (spans[from]?.end ?? 0) <= start) from++;
    for (let at = from; at < spans.length; at++) {
      const span = spans[at];
      if (span === undefined || span.start >= end) break;
      yield partOf(run, Math.max(start, span.start), Math.min(end, span.end));
    }
  }
}

/** The parts of ascending runs that lie in none of ascending spans. */
export function outside(runs: readonly Run[], spans: readonly Span[]): Run[] {
  const parts: Run[] = [];
  let from = 0;
  for (const run of runs) {
    let start = run.start;
    while (from < spans.length && (spans[from]?.end ?? 0) <= start) from++;
    for (let at = from; start < run.end; at++) {
      const span = spans[at];
      const end = Math.min(span?.start ?? run.end, run.end);
      if (end > start) parts.push(partOf(run, start, end));
      start = Math.max(start, span?.end ?? run.end);
    }
  }
  return parts;
}

/** What is to be done about pages of inherited mappings. */
export interface Difference {
  /** Pages to be read: the child alone has them, or others than its parent. Ascending. */
  readonly load: Iterable<Run>;
  /** Pages only the parent has. */
  readonly drop: readonly Span[];
}

/** All lists are ascending; `parent` is of what is kept alone, `shared` of what is known to be the same in both. */
export function compare(child: readonly Run[], parent: readonly Run[], shared?: readonly Span[]): Difference {
  if (parent.length === 0) return { load: child, drop: [] };
  if (shared !== undefined)
    return { load: outside(child, cut(cut(child, parent), shared)), drop: outside(parent, child) };
  const load = outside(child, parent);
  const theirs = cut(parent, child);
  // Cut by each other, both have the same parts.
  cut(child, parent).forEach((run, index) => {
    const other = theirs[index];
    if (other?.start !== run.start || other.end !== run.end) throw new Error('runs that do not match');
    load.push(...differing(run, other));
  });
  load.sort((a, b) => a.start - b.start);
  return { load, drop: outside(parent, child) };
}
