import { ERRNO } from '../../abi/errno.js';
import * as P from '../../abi/pagemap.js';
import { SyscallError } from '../../kernel/errors.js';
import { NativeMemory } from '../../kernel/memory.js';
import { holdsPrivateData, isGuard, Pagemap } from '../../kernel/procfs/pagemap.js';
import { attempt } from '../../kernel/syscall.js';
import { USER_END } from '../../tape/gap.js';
import { PAGE } from './vma.js';

/**
 * Which pages of an address space have contents of their own. The PAGEMAP_SCAN ioctl (Linux 6.7) walks only page
 * tables that exist, so a sparse mapping costs nothing; before it, the whole pagemap is read, 8 bytes a page.
 */

/** Addresses as numbers: they are below 2^53, and a process can have hundreds of thousands of ranges. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

const REGIONS_AT_ONCE = 32 * 1024;
const ARGUMENT = REGIONS_AT_ONCE * P.PAGE_REGION_SIZE;
let memory: NativeMemory | undefined;

interface Question {
  /** Categories that must not be there. */
  readonly without: bigint;
  /** Of these at least one. */
  readonly anyOf: bigint;
}

/** Present or swapped out, no page of a file's, and not the shared page of zeros. */
const OWN_PAGES: Question = {
  without: P.PAGE_IS_FILE | P.PAGE_IS_PFNZERO | P.PAGE_IS_GUARD,
  anyOf: P.PAGE_IS_PRESENT | P.PAGE_IS_SWAPPED,
};
const GUARDS: Question = { without: 0n, anyOf: P.PAGE_IS_GUARD };

/** Puts a question to the kernel: for the regions up to a bufferful from `start` on. */
function putQuestion(question: Question): NativeMemory {
  memory ??= new NativeMemory(ARGUMENT + P.PM_SCAN_ARG_SIZE);
  const { address } = memory;
  const put = (offset: number, value: bigint) => {
    memory?.view.setBigUint64(ARGUMENT + offset, value, true);
  };
  put(P.PM_SCAN_ARG_OFFSET_SIZE, BigInt(P.PM_SCAN_ARG_SIZE));
  put(P.PM_SCAN_ARG_OFFSET_FLAGS, 0n);
  put(P.PM_SCAN_ARG_OFFSET_WALK_END, 0n);
  put(P.PM_SCAN_ARG_OFFSET_END, USER_END);
  put(P.PM_SCAN_ARG_OFFSET_VEC, address);
  put(P.PM_SCAN_ARG_OFFSET_VEC_LEN, BigInt(REGIONS_AT_ONCE));
  put(P.PM_SCAN_ARG_OFFSET_MAX_PAGES, 0n);
  put(P.PM_SCAN_ARG_OFFSET_CATEGORY_INVERTED, question.without);
  put(P.PM_SCAN_ARG_OFFSET_CATEGORY_MASK, question.without);
  put(P.PM_SCAN_ARG_OFFSET_CATEGORY_ANYOF_MASK, question.anyOf);
  // Categories that are reported split regions, so none that differ are asked for.
  put(P.PM_SCAN_ARG_OFFSET_RETURN_MASK, question.without | P.PAGE_IS_GUARD);
  return memory;
}

/**
 * The regions that answer a question, ascending. The kernel is asked again for every bufferful, so what is asked about
 * must not change meanwhile. Throws where the kernel cannot do it, before anything was answered.
 */
function* scan(pagemap: Pagemap, question: Question): Generator<Span> {
  let last: Span | undefined;
  for (;;) {
    const { view, address } = putQuestion(question);
    view.setBigUint64(ARGUMENT + P.PM_SCAN_ARG_OFFSET_START, BigInt(last?.end ?? 0), true);
    const count = attempt('ioctl', [pagemap.fd, P.PAGEMAP_SCAN, address + BigInt(ARGUMENT)]);
    if (count < 0) throw new SyscallError('ioctl(PAGEMAP_SCAN)', -count, pagemap.path);
    // Whoever is given a region may scan another process before it asks for the next one.
    const regions = new Float64Array(count * 2);
    for (let index = 0; index < count; index++) {
      const at = index * P.PAGE_REGION_SIZE;
      regions[index * 2] = readNumber(view, at);
      regions[index * 2 + 1] = readNumber(view, at + 8);
    }
    for (let index = 0; index < regions.length; index += 2) {
      const start = regions[index] ?? 0;
      const end = regions[index + 1] ?? 0;
      if (last?.end === start) last = { start: last.start, end };
      else {
        if (last !== undefined) yield last;
        last = { start, end };
      }
    }
    // With room left the walk was complete; walk_end may say less, for it is of the kernel's last inner round.
    if (count < REGIONS_AT_ONCE) break;
  }
  if (last !== undefined) yield last;
}

function readNumber(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 0x1_0000_0000;
}

function append(spans: Span[], start: number, end: number): void {
  const last = spans.at(-1);
  if (last !== undefined && last.end === start) spans[spans.length - 1] = { start: last.start, end };
  else spans.push({ start, end });
}

export interface PageScan {
  /** Ranges of pages with contents of their own, ascending; found while they are gone through, which is possible once. */
  readonly pages: Iterable<Span>;
  /** Guard regions (MADV_GUARD_INSTALL, Linux 6.13), ascending. */
  readonly guards: readonly Span[];
}

/**
 * `ranges` are the private mappings, ascending: what the old way has to look at. The memory must not change before all
 * pages were gone through.
 */
export function scanPages(pid: number, ranges: readonly Span[]): PageScan {
  using pagemap = new Pagemap(pid);
  return { pages: ownPages(pid, ranges), guards: guardsOf(pagemap, ranges) };
}

function* ownPages(pid: number, ranges: readonly Span[]): Generator<Span> {
  using pagemap = new Pagemap(pid);
  const pages = scan(pagemap, OWN_PAGES);
  const first = unlessUnknown(() => pages.next());
  if (first === undefined) {
    yield* readSpans(pagemap, ranges, holdsPrivateData);
    return;
  }
  if (first.done === true) return;
  yield first.value;
  yield* pages;
}

/** The category is of Linux 6.15 (EINVAL before). */
function guardsOf(pagemap: Pagemap, ranges: readonly Span[]): Span[] {
  return unlessUnknown(() => [...scan(pagemap, GUARDS)]) ?? readSpans(pagemap, ranges, isGuard);
}

/** Undefined where the kernel does not know the ioctl, or a category. */
function unlessUnknown<T>(ask: () => T): T | undefined {
  try {
    return ask();
  } catch (error) {
    if (error instanceof SyscallError && UNKNOWN.includes(error.errno)) return undefined;
    throw error;
  }
}

const UNKNOWN: readonly number[] = [ERRNO.ENOTTY, ERRNO.EINVAL];

const ENTRIES_AT_ONCE = 64 * 1024;

/** Reads the pagemap of ranges word by word; exported for its test against the ioctl. */
export function readSpans(
  pagemap: Pagemap,
  ranges: readonly Span[],
  wanted: (entry: bigint) => boolean,
): Span[] {
  const entries = new BigUint64Array(ENTRIES_AT_ONCE);
  const page = Number(PAGE);
  const spans: Span[] = [];
  for (const range of ranges) {
    for (let at = range.start; at < range.end; at += ENTRIES_AT_ONCE * page) {
      const end = Math.min(at + ENTRIES_AT_ONCE * page, range.end);
      pagemap.read(BigInt(at), BigInt(end), entries).forEach((entry, index) => {
        // Most are zero: nothing was ever there.
        if (entry !== 0n && wanted(entry)) append(spans, at + index * page, at + (index + 1) * page);
      });
    }
  }
  return spans;
}

/** Parts of ascending `spans` that lie in ascending `ranges`, each cut where a range ends. */
export function intersect(spans: readonly Span[], ranges: readonly Span[]): Span[] {
  const common: Span[] = [];
  let index = 0;
  for (const range of ranges) {
    while (index < spans.length && (spans[index]?.end ?? 0) <= range.start) index++;
    for (let at = index; at < spans.length; at++) {
      const span = spans[at];
      if (span === undefined || span.start >= range.end) break;
      common.push({ start: Math.max(span.start, range.start), end: Math.min(span.end, range.end) });
    }
  }
  return common;
}
