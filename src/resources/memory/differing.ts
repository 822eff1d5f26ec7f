import { closeSync, readSync } from 'node:fs';
import type { ImageReader } from '../../image/reader.js';
import { partOf, type Run } from './runs.js';

/** Which pages of a process are not those of its parent. */

const PAGE = 4096;
const MIB = 1 << 20;
/** A parent is compared with each of its children: a small one is read once. */
const WINDOW_SIZES = { child: MIB, parent: 8 * MIB };

/** The piece of a pages file that was read last: runs lie one after the other in it. */
class Window {
  readonly #buffer: Buffer;
  #reader: ImageReader | undefined;
  #pagesId = 0;
  #from = 0;
  #end = 0;

  constructor(size: number) {
    this.#buffer = Buffer.allocUnsafeSlow(size);
  }

  /** What a run has from address `at` on, up to `length` bytes; good until the next call. */
  bytes({ reader, pagesId, start, end, offset }: Run, at: number, length: number): Buffer {
    const from = offset + at - start;
    const isSame = this.#reader === reader && this.#pagesId === pagesId;
    if (!isSame || from < this.#from || from + PAGE > this.#end) this.#fill(reader, pagesId, from);
    const until = Math.min(from + Math.min(length, end - at), this.#end);
    return this.#buffer.subarray(from - this.#from, until - this.#from);
  }

  #fill(reader: ImageReader, pagesId: number, from: number): void {
    const fd = reader.openPages(pagesId);
    this.#reader = undefined;
    try {
      const count = readSync(fd, this.#buffer, 0, this.#buffer.length, from);
      if (count < PAGE) throw new Error(`pages-${pagesId}.img of ${reader.directory} ends too early`);
      this.#from = from;
      this.#end = from + count - (count % PAGE);
      this.#pagesId = pagesId;
      this.#reader = reader;
    } finally {
      closeSync(fd);
    }
  }
}

interface Windows {
  readonly child: Window;
  readonly parent: Window;
}

const windows = new WeakMap<ImageReader, Windows>();

function windowsOf(reader: ImageReader): Windows {
  const known = windows.get(reader);
  if (known !== undefined) return known;
  const fresh = { child: new Window(WINDOW_SIZES.child), parent: new Window(WINDOW_SIZES.parent) };
  windows.set(reader, fresh);
  return fresh;
}

/** The parts of `run` whose pages differ from those of the parent's `other`, which has the same addresses. */
export function differing(run: Run, other: Run): Run[] {
  const { child, parent } = windowsOf(run.reader);
  const parts: Run[] = [];
  let differs: number | undefined;
  for (let at = run.start; at < run.end; ) {
    const left = child.bytes(run, at, run.end - at);
    const right = parent.bytes(other, at, left.length);
    const length = right.length;
    const isEqual = left.compare(right, 0, length, 0, length) === 0;
    for (let page = 0; page < length; page += isEqual ? length : PAGE) {
      const same = isEqual || left.compare(right, page, page + PAGE, page, page + PAGE) === 0;
      if (same && differs !== undefined) parts.push(partOf(run, differs, at + page));
      if (same) differs = undefined;
      else differs ??= at + page;
    }
    at += length;
  }
  if (differs !== undefined) parts.push(partOf(run, differs, run.end));
  return parts;
}
