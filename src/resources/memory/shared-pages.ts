import { isRecord, readJson } from '../../image/json.js';
import type { ImageWriter } from '../../image/writer.js';
import { Pagemap } from '../../kernel/procfs/pagemap.js';
import type { Process, ProcessImage } from '../contract.js';
import type { Span } from './scan.js';

/**
 * Which pages a process shares with its parent since the fork. CRIU has no field for it and compares contents at the
 * restore, which means to read all pages of all children; the frames tell it at the dump. So it is a file of our own: for
 * each process by its pid whose parent was looked at (`with`), the first page and the number of pages of each range, ascending.
 * Where a process is not in it, contents are compared.
 */
const FILE = 'stasis-shared-pages.json';

const PAGE = 4096;
const ENTRY = 8;
/** Ranges of one process; a process with more is compared at the restore, for here they are all in memory. */
const SPANS_MAX = 10_000;
/** Spans that are not farther from each other are read at once, as long as that is not more than a buffer. */
const GAP = 512 * PAGE;
const BUFFER_ENTRIES = 64 * 1024;
/** How often the parent is read again because a page of it was just moved (compaction, swapping). */
const ATTEMPTS = 3;

interface Source {
  readonly pid: number;
  readonly isCopy: boolean;
}

export class SharedPages {
  readonly #sources = new Map<Process, Source>();
  readonly #noted: Record<number, { with: number; pages: number[] }> = {};
  readonly #buffers = [0, 0, 0].map(() => Buffer.allocUnsafeSlow(BUFFER_ENTRIES * ENTRY));

  /** Lists the saved spans of a process as they go by, and compares frames when they are all there. */
  *noting<T extends Span>(process: Process, source: number, spans: Iterable<T>): Generator<T> {
    const all: Span[] = [];
    for (const span of spans) {
      if (all.length <= SPANS_MAX) all.push({ start: span.start, end: span.end });
      yield span;
    }
    if (all.length <= SPANS_MAX) this.#note(process, source, all);
  }

  write(writer: ImageWriter): void {
    if (Object.keys(this.#noted).length === 0) return;
    writer.writeBytes(FILE, [Buffer.from(`${JSON.stringify(this.#noted)}\n`)]);
  }

  #note(process: Process, pid: number, spans: readonly Span[]): void {
    const source = { pid, isCopy: pid !== process.pid };
    this.#sources.set(process, source);
    const { parent } = process;
    const theirs = parent === undefined ? undefined : this.#sources.get(parent);
    // A copy is of the frozen window, whatever its process does by now; of two that stand still, equal frames are equal pages.
    if (parent === undefined || theirs?.isCopy !== source.isCopy) return;
    using mine = new Pagemap(pid);
    using other = new Pagemap(theirs.pid);
    const ranges = new Ranges();
    for (const cluster of clusters(spans)) if (!this.#compare(cluster, mine, other, ranges)) return;
    if (ranges.areTold && ranges.pages.length <= SPANS_MAX * 2)
      this.#noted[process.insidePid] = { with: parent.insidePid, pages: ranges.pages };
  }

  /** False where pages of the parent move all the time. */
  #compare(cluster: Cluster, mine: Pagemap, parent: Pagemap, ranges: Ranges): boolean {
    const { start, end } = cluster;
    const length = ((end - start) / PAGE) * ENTRY;
    const [own, before, after] = this.#buffers.map((buffer) => buffer.subarray(0, length));
    if (own === undefined || before === undefined || after === undefined) return false;
    // A frame that was the parent's page may have become another page of ours meanwhile, unless it still is the parent's.
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      for (const [pagemap, into] of [
        [parent, before] as const,
        [mine, own] as const,
        [parent, after] as const,
      ])
        pagemap.read(BigInt(start), BigInt(end), new BigUint64Array(into.buffer, 0, length / ENTRY));
      if (!before.equals(after)) continue;
      for (const span of cluster.spans) compareSpan(span, start, own, after, ranges);
      return true;
    }
    return false;
  }
}

/** Page numbers and counts, neighbours joined. */
class Ranges {
  readonly pages: number[] = [];
  /** Did the kernel say the frame of any page? */
  areTold = false;

  add(page: number, count: number): void {
    const { pages } = this;
    const last = pages.length - 2;
    if (last >= 0 && (pages[last] ?? 0) + (pages[last + 1] ?? 0) === page)
      pages[last + 1] = (pages[last + 1] ?? 0) + count;
    else pages.push(page, count);
  }
}

interface Cluster extends Span {
  readonly spans: readonly Span[];
}

function* clusters(spans: readonly Span[]): Generator<Cluster> {
  let group: Span[] = [];
  const room = BUFFER_ENTRIES * PAGE;
  const grouped = (): Cluster => ({ start: group[0]?.start ?? 0, end: group.at(-1)?.end ?? 0, spans: group });
  for (const span of spans) {
    for (let start = span.start; start < span.end; start += room) {
      const end = Math.min(start + room, span.end);
      const first = group[0]?.start ?? start;
      if (start - (group.at(-1)?.end ?? start) > GAP || end - first > room) {
        yield grouped();
        group = [];
      }
      group.push({ start, end });
    }
  }
  if (group.length > 0) yield grouped();
}

const BLOCK = 64;
/** Of the upper half of an entry: present, swapped, and the frame or the place in the swap area (pagemap.rst). */
const UPPER = 0xc07f_ffff;
const UPPER_FRAME = 0x007f_ffff;

/** Most blocks are equal as they are. */
function compareSpan(span: Span, from: number, own: Buffer, parent: Buffer, ranges: Ranges): void {
  const last = (span.end - from) / PAGE;
  const offset = from / PAGE;
  for (let at = (span.start - from) / PAGE; at < last; at += BLOCK) {
    const end = Math.min(at + BLOCK, last);
    const [start, stop] = [at * ENTRY, end * ENTRY];
    if (hasFrame(own, at)) {
      ranges.areTold = true;
      if (own.compare(parent, start, stop, start, stop) === 0) {
        ranges.add(offset + at, end - at);
        continue;
      }
    }
    for (let page = at; page < end; page++) if (isSame(own, parent, page)) ranges.add(offset + page, 1);
  }
}

/** The kernel's own pages have none, and none has where frames are hidden. */
function hasFrame(entries: Buffer, page: number): boolean {
  const at = page * ENTRY;
  return entries.readUInt32LE(at) !== 0 || (entries.readUInt32LE(at + 4) & UPPER_FRAME) !== 0;
}

function isSame(own: Buffer, parent: Buffer, page: number): boolean {
  const at = page * ENTRY;
  if (own.readUInt32LE(at) !== parent.readUInt32LE(at) || !hasFrame(own, page)) return false;
  return ((own.readUInt32LE(at + 4) ^ parent.readUInt32LE(at + 4)) & UPPER) === 0;
}

interface Noted {
  readonly parent: number;
  readonly spans: readonly Span[];
}

/** The pages that a process shares with the one it is forked from; undefined where the image does not tell. */
export function sharedWith(image: ProcessImage, parent: ProcessImage): readonly Span[] | undefined {
  const noted = readJson(image.reader, FILE, decode)?.get(image.pid);
  return noted?.parent === parent.pid ? noted.spans : undefined;
}

function decode(content: unknown): ReadonlyMap<number, Noted> {
  if (!isRecord(content)) throw new Error('is no list of processes');
  return new Map(Object.entries(content).map(([pid, item]) => [Number(pid), notedFrom(pid, item)]));
}

function notedFrom(pid: string, item: unknown): Noted {
  const { with: parent, pages } = isRecord(item) ? item : {};
  if (!isNumber(parent) || !Array.isArray(pages) || !pages.every(isNumber))
    throw new Error(`says nothing of the pages of process ${pid}`);
  const spans: Span[] = [];
  let end = 0;
  for (let index = 0; index < pages.length; index += 2) {
    const start = (pages[index] ?? 0) * PAGE;
    if (start < end) throw new Error(`has pages of process ${pid} in no order`);
    end = start + (pages[index + 1] ?? 0) * PAGE;
    spans.push({ start, end });
  }
  return { parent, spans };
}

function isNumber(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0 && Number(value) < 2 ** 40;
}
