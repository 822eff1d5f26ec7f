import { O_RDONLY } from '../../abi/fcntl.js';
import {
  MADV_DONTFORK,
  MADV_WIPEONFORK,
  MAP_ANONYMOUS,
  MAP_DROPPABLE,
  MAP_HUGETLB,
  MAP_LOCKED,
  MAP_PRIVATE,
  PROT_READ,
} from '../../abi/mman.js';
import { PR_GET_DUMPABLE, PR_GET_THP_DISABLE } from '../../abi/prctl.js';
import { createMessage } from '../../image/codec.js';
import type { MessageOf } from '../../image/kinds.js';
import { PAGE_BYTES, type PagemapEntry, PE_LAZY, PE_PRESENT } from '../../image/pagemap.js';
import { readAuxv } from '../../kernel/procfs/auxv.js';
import { mappingsIn, readSmapsBytes } from '../../kernel/procfs/smaps.js';
import {
  type Actor,
  type DumpContext,
  nameOf,
  type PendingMemory,
  type Played,
  type Process,
  type Tape,
} from '../contract.js';
import { askRings, ringEntries } from './aio.js';
import { type CopySpan, copyPages } from './copy.js';
import { writeExtras } from './extras.js';
import { guardEntry, MappingCollector, spanOf, type VmaFields, vmasOf } from './mappings.js';
import { MemfdCollector } from './memfd.js';
import { PagesFiles } from './pages-file.js';
import { type PageScan, type Span, scanPages } from './scan.js';
import { dumpSegments } from './segments.js';
import { SharedPages } from './shared-pages.js';
import { isPrivate, VMA, type Vma } from './vma.js';

/** What only the process itself can tell of its memory. */
interface Answers {
  readonly brk: bigint;
  readonly dumpable: number;
  readonly thpDisabled: boolean;
}

/**
 * Writes mm-P of every process, memfd.img and the contents of shared memory; pagemap-P and pages-N of a process at once,
 * unless it has a copy whose memory is the same, out of which they can be read later.
 */
export function dumpMemory(
  context: DumpContext,
  tasks: ReadonlyMap<Process, Actor>,
  copyOf: (process: Process) => number | undefined,
): PendingMemory {
  const { memfds, writer } = context;
  if (!(memfds instanceof MemfdCollector)) throw new TypeError('memfds are collected by something else');
  const pages = new PagesFiles(writer);
  const shares = new SharedPages();
  try {
    const report = { privatePages: 0, sharedPages: 0 };
    const later: (() => void)[] = [];
    const segments = new Map<bigint, { process: Process; vma: Vma }>();
    for (const [process, actor] of tasks) {
      const maps = readSmapsBytes(process.pid);
      const workspace = actor.leave === undefined ? undefined : actor.slice.code;
      const copy = copyOf(process);
      if (copy !== undefined && isPlain(maps)) {
        const twin = { ...process, pid: copy };
        const exe = context.files.addLink(process, 'exe', O_RDONLY);
        later.push(() => {
          const vmas = vmasOf(mappingsIn(maps), workspace);
          const mm = describe(twin, vmas, answers.get(process), context, exe);
          report.privatePages += writePrivate(process, copy, { vmas, mm, pages, shares, writer });
        });
        continue;
      }
      const vmas = vmasOf(mappingsIn(maps), workspace);
      for (const vma of vmas) if (vma.backing === 'sysv') segments.set(vma.mapping.inode, { process, vma });
      const mm = describe(process, vmas, answers.get(process), context);
      const source = vmas.some(differsInCopy) ? undefined : copy;
      const write = () => {
        report.privatePages += writePrivate(process, source ?? process.pid, {
          vmas,
          mm,
          pages,
          shares,
          writer,
        });
      };
      if (source === undefined) write();
      else later.push(write);
    }
    const shared = memfds.write(pages);
    if (shared.entries.length > 0) writer.write('memfd', null, shared.entries);
    report.sharedPages = shared.pages + dumpSegments(segments, pages, writer);
    return {
      finish() {
        for (const write of later) write();
        shares.write(writer);
        return report;
      },
    };
  } finally {
    memfds[Symbol.dispose]();
  }
}

/**
 * Words of smaps that tell of what a copy lacks, or of files that may be another or gone when the tree goes on: flags dc
 * (DONTFORK), wf (WIPEONFORK) and ht (huge pages), shared memory, and whatever is no plain file.
 */
const PECULIAR = [
  'dc ',
  'wf ',
  'ht ',
  '(deleted)',
  '[aio]',
  'SYSV',
  'memfd:',
  'socket:',
  '/proc/',
  '/sys/',
  '/dev/',
];

/** Can everything about these mappings be found in a copy as well? A path may look as if it could not. */
function isPlain(maps: Buffer): boolean {
  return !PECULIAR.some((word) => maps.includes(word));
}

/** An address space, and where it goes. */
interface Space {
  readonly vmas: readonly Vma[];
  readonly mm: MessageOf<'mm'>;
  readonly pages: PagesFiles;
  readonly shares: SharedPages;
  readonly writer: DumpContext['writer'];
}

/** The image of the address space, and its pages out of `source`. Answers how many. */
function writePrivate(process: Process, source: number, space: Space): number {
  const { vmas, mm, writer } = space;
  const scan = scanPages(source, vmas.filter(isPrivate).map(spanOf));
  // Guard regions are no mappings of their own; CRIU puts them behind all others.
  mm.vmas.push(...createMessage('mm', { vmas: scan.guards.map(guardEntry) }).vmas);
  writer.write('mm', process.insidePid, [mm]);
  writeExtras(process.insidePid, vmas, writer);
  return writePages(process, source, space, scan);
}

/** A ring of asynchronous I/O is shared. fork(2) leaves out DONTFORK, empties WIPEONFORK, and may not have the huge pages for private hugetlb (SIGBUS). */
function differsInCopy({ madv, flags, backing }: Vma): boolean {
  return (
    backing === 'ring' ||
    (madv & DIFFERENT_IN_FORK) !== 0n ||
    (flags & (MAP_HUGETLB | MAP_PRIVATE)) === (MAP_HUGETLB | MAP_PRIVATE)
  );
}

const DIFFERENT_IN_FORK = (1n << BigInt(MADV_DONTFORK)) | (1n << BigInt(MADV_WIPEONFORK));

const answers = new WeakMap<Process, Answers>();

/** brk(2) with an address below the heap answers where it ends. */
export function askMemory(tape: Tape, process: Process): (played: Played, process: Process) => void {
  tape.about('memory');
  const brk = tape.call('brk', [0]);
  const dumpable = tape.call('prctl', [PR_GET_DUMPABLE, 0, 0, 0, 0]);
  const thp = tape.call('prctl', [PR_GET_THP_DISABLE, 0, 0, 0, 0], 'any');
  const rings = askRings(tape, process);
  return (played, process) => {
    rings(played, process);
    answers.set(process, {
      brk: played.result(brk),
      dumpable: Number(played.result(dumpable)),
      thpDisabled: played.result(thp) === 1n,
    });
  };
}

/**
 * The image of an address space as far as the process itself has to be looked at for it, or its copy when it goes on already;
 * `exe` was known before then.
 */
function describe(
  process: Process,
  vmas: readonly Vma[],
  answers: Answers | undefined,
  context: DumpContext,
  exe?: number,
): MessageOf<'mm'> {
  if (answers === undefined) throw new Error(`${nameOf(process)} was not asked`);
  const collector = new MappingCollector(process, context, exe !== undefined);
  const entries: VmaFields[] = vmas.map((vma) => collector.entry(vma));
  const { stat } = process;
  return createMessage('mm', {
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
    exeFileId: exe ?? context.files.addLink(process, 'exe', O_RDONLY),
    mmSavedAuxv: auxvOf(process.pid),
    vmas: entries,
    aios: ringEntries(process, vmas, context),
    dumpable: answers.dumpable,
    thpDisabled: answers.thpDisabled,
  });
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

/** `source` is the pid out of which they are read. Answers the number of pages. */
function writePages(
  process: Process,
  source: number,
  { vmas, pages, shares }: Space,
  scan: PageScan,
): number {
  return pages.add(process.insidePid, {}, (file, tell) => {
    const spans = shares.noting(process, source, savedSpans(process, vmas, scan.pages));
    const isShared = source !== process.pid || process.parent !== undefined || process.children.length > 0;
    copyPages({ pid: source, isShared }, telling(spans, tell), file, nameOf(process));
  });
}

/** The same spans, each told of when it is asked for. */
function* telling(spans: Iterable<SavedSpan>, tell: (run: PagemapEntry) => void): Generator<SavedSpan> {
  for (const span of spans) {
    tell(entryOf(span));
    yield span;
  }
}

interface SavedSpan extends CopySpan {
  readonly lazy: boolean;
}

function entryOf({ start, end, lazy }: SavedSpan): PagemapEntry {
  return {
    vaddr: BigInt(start),
    nrPages: (end - start) / PAGE_BYTES,
    flags: PE_PRESENT | (lazy ? PE_LAZY : 0),
  };
}

/** Which pages are saved, in ascending order. There can be millions, so no list is made of them. */
function* savedSpans(process: Process, vmas: readonly Vma[], found: Iterable<Span>): Generator<SavedSpan> {
  const pointers = process.threads.map(({ frozen }) => Number((frozen?.registers.sp ?? 0n) & ~0xfffn));
  const rest = found[Symbol.iterator]();
  try {
    let next = rest.next();
    for (const vma of vmas) {
      if (!isPrivate(vma) || (vma.flags & MAP_DROPPABLE) !== 0) continue;
      const { start, end } = spanOf(vma);
      const readable = (vma.prot & PROT_READ) !== 0;
      // The vDSO and rings are the kernel's, no page of them is the process's own.
      if ((vma.status & (VMA.VDSO | VMA.AIORING)) !== 0) {
        yield { start, end, readable, lazy: false };
        continue;
      }
      // The page under a thread's stack pointer is never lazy: the kernel touches it when the thread starts.
      const lazy = canBeLazy(vma);
      const kept = lazy ? pointers.filter((at) => at >= start && at < end).sort((a, b) => a - b) : [];
      for (; next.done !== true; next = rest.next()) {
        const span = next.value;
        if (span.start >= end) break;
        const part = { start: Math.max(span.start, start), end: Math.min(span.end, end), readable, lazy };
        if (part.start < part.end) yield* cutAround(kept, part);
        // It may go on in the next mapping.
        if (span.end > end) break;
      }
    }
  } finally {
    // Regions behind the last mapping were not asked for.
    rest.return?.();
  }
}

/** A span, cut around the pages that are not lazy. */
function* cutAround(kept: readonly number[], span: SavedSpan): Generator<SavedSpan> {
  let { start } = span;
  for (const at of kept) {
    if (at < start || at >= span.end) continue;
    if (at > start) yield { ...span, start, end: at };
    yield { ...span, start: at, end: at + PAGE_BYTES, lazy: false };
    start = at + PAGE_BYTES;
  }
  if (start < span.end) yield { ...span, start };
}

/** May pages of it come after the process runs again? As CRIU marks them. */
function canBeLazy({ flags, status }: Vma): boolean {
  const plain = MAP_ANONYMOUS | MAP_PRIVATE;
  if ((flags & (plain | MAP_LOCKED | MAP_HUGETLB)) !== plain) return false;
  return (status & (VMA.VDSO | VMA.VVAR | VMA.VSYSCALL)) === 0;
}
