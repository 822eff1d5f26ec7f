/**
 * /proc/PID/pagemap: Documentation/admin-guide/mm/pagemap.rst, fs/proc/task_mmu.c pagemap_read(). One word of
 * 64 bits a page. The frame number reads 0 without CAP_SYS_ADMIN; nothing here depends on it.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { ProcfsError } from './error.js';
import { attempt, taskPath, type Where } from './read.js';

const PM_GUARD_REGION = 1n << 58n;
/** Page of a file, or shared anonymous. */
const PM_FILE = 1n << 61n;
const PM_SWAP = 1n << 62n;
const PM_PRESENT = 1n << 63n;
const PM_PFRAME_MASK = (1n << 55n) - 1n;

export const isPresent = (entry: bigint): boolean => (entry & PM_PRESENT) !== 0n;
export const isGuard = (entry: bigint): boolean => (entry & PM_GUARD_REGION) !== 0n;

/** Number of the page frame of a present page; 0 without the right to know. */
export const frameOf = (entry: bigint): bigint => (isPresent(entry) ? entry & PM_PFRAME_MASK : 0n);

/**
 * Whether a private mapping has a page of its own here, in memory or swapped out, to be written to an image.
 * The shared zero page counts too: this file does not tell it apart (PAGEMAP_SCAN does, PAGE_IS_PFNZERO).
 */
export function holdsPrivateData(entry: bigint): boolean {
  return (entry & (PM_PRESENT | PM_SWAP)) !== 0n && (entry & (PM_FILE | PM_GUARD_REGION)) === 0n;
}

const PAGE_SHIFT = 12n;
const ENTRY_SHIFT = 3n;

/** An open pagemap; it stays with the memory it was opened for, also over an execve. */
export class Pagemap {
  readonly path: string;
  readonly #fd: number;
  #open = true;

  constructor(pid: number, where: Where = {}) {
    this.path = taskPath(pid, 'pagemap', { proc: where.proc });
    this.#fd = attempt(this.path, 'cannot open', () => openSync(this.path, 'r'));
  }

  /** For the PAGEMAP_SCAN ioctl. */
  get fd(): number {
    return this.#fd;
  }

  /** Entries of the pages from start up to end; they go into the given array where it is large enough. */
  read(start: bigint, end: bigint, into?: BigUint64Array): BigUint64Array {
    const count = Number((end - start) >> PAGE_SHIFT);
    const entries =
      into !== undefined && into.length >= count ? into.subarray(0, count) : new BigUint64Array(count);
    const bytes = new Uint8Array(entries.buffer, entries.byteOffset, entries.byteLength);
    const from = (start >> PAGE_SHIFT) << ENTRY_SHIFT;
    for (let done = 0; done < bytes.length; ) {
      const position = from + BigInt(done);
      const length = bytes.length - done;
      const got = attempt(this.path, 'cannot read', () => readSync(this.#fd, bytes, done, length, position));
      if (got === 0) throw new ProcfsError(this.path, '', `ends before 0x${end.toString(16)}`);
      done += got;
    }
    return entries;
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#fd);
  }
}

/** Entries of one range, for those who need no more. */
export function readPagemap(
  pid: number,
  range: { start: bigint; end: bigint },
  where: Where = {},
): BigUint64Array {
  const pagemap = new Pagemap(pid, where);
  try {
    return pagemap.read(range.start, range.end);
  } finally {
    pagemap[Symbol.dispose]();
  }
}
