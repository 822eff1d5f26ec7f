import { O_RDONLY } from '../../abi/fcntl.js';
import {
  MAP_ANONYMOUS,
  MAP_DROPPABLE,
  MAP_HUGETLB,
  MAP_LOCKED,
  MAP_PRIVATE,
  PROT_READ,
} from '../../abi/mman.js';
import { PR_GET_DUMPABLE, PR_GET_THP_DISABLE } from '../../abi/prctl.js';
import { createMessage } from '../../image/codec.js';
import { type PagemapEntry, PE_LAZY, PE_PRESENT } from '../../image/pagemap.js';
import { readAuxv } from '../../kernel/procfs/auxv.js';
import { play } from '../../tape/play.js';
import { Tape } from '../../tape/tape.js';
import {
  type Actor,
  type DumpContext,
  type MemoryReport,
  nameOf,
  type Process,
  type Result,
} from '../contract.js';
import { type CopySpan, copyPages } from './copy.js';
import { guardEntry, MappingCollector, readVmas, spanOf, type VmaFields } from './mappings.js';
import { MemfdCollector } from './memfd.js';
import { PagesFiles } from './pages-file.js';
import { intersect, type PageScan, type Span, scanPages } from './scan.js';
import { dumpSegments } from './segments.js';
import { isPrivate, VMA, type Vma } from './vma.js';

/** What only the process itself can tell of its memory. */
interface Answers {
  readonly brk: bigint;
  readonly dumpable: number;
  readonly thpDisabled: boolean;
}

/** Writes mm-P, pagemap-P, pages-N of every process, memfd.img and the contents of shared memory. */
export function dumpMemory(context: DumpContext, tasks: ReadonlyMap<Process, Actor>): MemoryReport {
  const { memfds, writer } = context;
  if (!(memfds instanceof MemfdCollector)) throw new TypeError('memfds are collected by something else');
  const pages = new PagesFiles(writer);
  const answers = ask(tasks);
  try {
    let privatePages = 0;
    const segments = new Map<bigint, { process: Process; vma: Vma }>();
    for (const [process, actor] of tasks) {
      const vmas = readVmas(process.pid, actor.leave === undefined ? undefined : actor.slice.code);
      for (const vma of vmas) if (vma.backing === 'sysv') segments.set(vma.mapping.inode, { process, vma });
      const scan = scanPages(process.pid, vmas.filter(isPrivate).map(spanOf));
      writeMm(process, vmas, scan, answers.get(process), context);
      privatePages += writePages(process, vmas, scan, pages);
    }
    const shared = memfds.write(pages);
    if (shared.entries.length > 0) writer.write('memfd', null, shared.entries);
    return { privatePages, sharedPages: shared.pages + dumpSegments(segments, pages, writer) };
  } finally {
    memfds[Symbol.dispose]();
  }
}

/** One play for the whole tree. brk(2) with an address below the heap answers where it ends. */
function ask(tasks: ReadonlyMap<Process, Actor>): Map<Process, Answers> {
  const asked = [...tasks].map(([process, actor]) => {
    const tape = new Tape(`questions about the memory of ${actor.name}`);
    const results: Result[] = [
      tape.call('brk', [0]),
      tape.call('prctl', [PR_GET_DUMPABLE, 0, 0, 0, 0]),
      tape.call('prctl', [PR_GET_THP_DISABLE, 0, 0, 0, 0], 'any'),
    ];
    return { process, play: { actor, tape }, results };
  });
  const played = play(asked.map((question) => question.play));
  return new Map(
    asked.map(({ process, results }, index) => {
      const [brk, dumpable, thp] = results.map((result) => played[index]?.result(result) ?? 0n);
      return [process, { brk: brk ?? 0n, dumpable: Number(dumpable), thpDisabled: thp === 1n }];
    }),
  );
}

function writeMm(
  process: Process,
  vmas: readonly Vma[],
  scan: PageScan,
  answers: Answers | undefined,
  context: DumpContext,
): void {
  if (answers === undefined) throw new Error(`${nameOf(process)} was not asked`);
  const collector = new MappingCollector(process, context);
  const entries: VmaFields[] = vmas.map((vma) => collector.entry(vma));
  const { stat } = process;
  const mm = createMessage('mm', {
    mmStartCode: stat.start_code,
    mmEndCode: stat.end_code,
    mmStartData: stat.start_data,
    mmEndData: stat.end_data,
    mmStartStack: stat.startstack,
    mmStartBrk: stat.start_brk,
    mmBrk: answers.brk,
    mmArgStart: stat.arg_start,
    mmArgEnd: stat.arg_end,
    mmEnvStart: stat.env_start,
    mmEnvEnd: stat.env_end,
    exeFileId: context.files.addLink(process, 'exe', O_RDONLY),
    mmSavedAuxv: auxvOf(process.pid),
    // Guard regions are no mappings of their own; CRIU puts them behind all others.
    vmas: [...entries, ...scan.guards.map(guardEntry)],
    dumpable: answers.dumpable,
    thpDisabled: answers.thpDisabled,
  });
  context.writer.write('mm', process.insidePid, [mm]);
}

const AUXV_WORDS = 44;

/**
 * The auxiliary vector as CRIU has it, in 44 words, which it does not accept more of. Linux 6.18 keeps more, but just
 * these are in use; AT_NULL, the pair of zeros behind them, the kernel adds by itself when they are set.
 */
function auxvOf(pid: number): bigint[] {
  const words = [...readAuxv(pid)];
  let end = 0;
  while (end < words.length && words[end] !== 0n) end += 2;
  return words.slice(0, Math.max(AUXV_WORDS, end));
}

/** Answers the number of pages. */
function writePages(process: Process, vmas: readonly Vma[], scan: PageScan, pages: PagesFiles): number {
  const spans = savedSpans(process, vmas, scan.pages);
  return pages.add(process.insidePid, {}, (fd) => {
    copyPages(process.pid, spans, fd, nameOf(process));
    return spans.map(entryOf);
  });
}

interface SavedSpan extends CopySpan {
  readonly lazy: boolean;
}

function entryOf({ start, end, lazy }: SavedSpan): PagemapEntry {
  return { vaddr: BigInt(start), nrPages: (end - start) / 4096, flags: PE_PRESENT | (lazy ? PE_LAZY : 0) };
}

/** Which pages are saved, in ascending order. */
function savedSpans(process: Process, vmas: readonly Vma[], found: readonly Span[]): SavedSpan[] {
  const kept = vmas.filter((vma) => isPrivate(vma) && (vma.flags & MAP_DROPPABLE) === 0);
  const pointers = process.threads.map(({ frozen }) => Number((frozen?.registers.sp ?? 0n) & ~0xfffn));
  const spans: SavedSpan[] = [];
  let from = 0;
  for (const vma of kept) {
    const span = spanOf(vma);
    while (from < found.length && (found[from]?.end ?? 0) <= span.start) from++;
    const readable = (vma.prot & PROT_READ) !== 0;
    // The vDSO is the kernel's, no page of it is the process's own, but another kernel's may differ.
    const isVdso = (vma.status & VMA.VDSO) !== 0;
    const parts = isVdso ? [span] : intersectFrom(found, from, span);
    const lazy = canBeLazy(vma);
    for (const part of parts)
      for (const piece of lazy ? cutAt(part, pointers) : [{ ...part, lazy }])
        spans.push({ ...piece, readable });
  }
  return spans;
}

function intersectFrom(found: readonly Span[], from: number, range: Span): Span[] {
  let to = from;
  while (to < found.length && (found[to]?.start ?? 0) < range.end) to++;
  return intersect(found.slice(from, to), [range]);
}

/** May pages of it come after the process runs again? As CRIU marks them. */
function canBeLazy({ flags, status }: Vma): boolean {
  const plain = MAP_ANONYMOUS | MAP_PRIVATE;
  if ((flags & (plain | MAP_LOCKED | MAP_HUGETLB)) !== plain) return false;
  return (status & (VMA.VDSO | VMA.VVAR | VMA.VSYSCALL)) === 0;
}

/** The page under a thread's stack pointer is never lazy: the kernel touches it when the thread starts. */
function cutAt(span: Span, pointers: readonly number[]): (Span & { lazy: boolean })[] {
  const hits = [...new Set(pointers)].filter((at) => at >= span.start && at < span.end).sort((a, b) => a - b);
  const pieces: (Span & { lazy: boolean })[] = [];
  let at = span.start;
  for (const hit of hits) {
    if (hit > at) pieces.push({ start: at, end: hit, lazy: true });
    pieces.push({ start: hit, end: hit + 4096, lazy: false });
    at = hit + 4096;
  }
  if (at < span.end) pieces.push({ start: at, end: span.end, lazy: true });
  return pieces;
}
