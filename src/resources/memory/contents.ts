import { ERRNO } from '../../abi/errno.js';
import { SEEK_DATA, SEEK_HOLE } from '../../abi/fcntl.js';
import { PAGE_BYTES, type PagemapEntry, PE_PRESENT } from '../../image/pagemap.js';
import type { ImageFile } from '../../image/target.js';
import { SyscallError } from '../../kernel/errors.js';
import { attempt, syscall } from '../../kernel/syscall.js';
import { copyBuffer } from './copy.js';

/**
 * Contents of shared memory, read through a descriptor of its inode: pages that were never there (SEEK_HOLE) and
 * pages of zeros are left out, for both read as zeros when they are gone.
 */

const ZEROS = Buffer.alloc(PAGE_BYTES);

/** Where data begin at or after `from`, or `size`. Files without holes (hugetlbfs) are data all over. */
function seek(fd: number, from: number, size: number, whence: number): number {
  const at = attempt('lseek', [fd, from, whence]);
  if (at === -ERRNO.ENXIO) return size;
  if (at === -ERRNO.EINVAL) return whence === SEEK_DATA ? from : size;
  if (at < 0) throw new SyscallError('lseek', -at, 'shared memory');
  return Math.min(at, size);
}

class Collected {
  readonly #tell: (run: PagemapEntry) => void;
  #start = 0;
  #pages = 0;

  constructor(tell: (run: PagemapEntry) => void) {
    this.#tell = tell;
  }

  page(at: number): void {
    if (this.#pages > 0 && this.#start + this.#pages * PAGE_BYTES === at) {
      this.#pages++;
      return;
    }
    this.end();
    this.#start = at;
    this.#pages = 1;
  }

  end(): void {
    if (this.#pages > 0) this.#tell({ vaddr: BigInt(this.#start), nrPages: this.#pages, flags: PE_PRESENT });
    this.#pages = 0;
  }
}

/**
 * Append what `source` holds up to `size` (a multiple of the page size is not needed) to `target`, and tell of the runs.
 * The offset of `source` is changed, so it must be a description of our own.
 */
export function copyContents(
  source: number,
  size: number,
  target: ImageFile,
  object: string,
  tell: (run: PagemapEntry) => void,
): void {
  const collected = new Collected(tell);
  const whole = Math.ceil(size / PAGE_BYTES) * PAGE_BYTES;
  for (let at = seek(source, 0, whole, SEEK_DATA); at < whole; at = seek(source, at, whole, SEEK_DATA)) {
    const start = at - (at % PAGE_BYTES);
    const end = Math.ceil(seek(source, start, whole, SEEK_HOLE) / PAGE_BYTES) * PAGE_BYTES;
    for (at = start; at < end; ) at += copyPart(source, at, end, target, object, collected);
  }
  collected.end();
}

/** Copy a bufferful; answers how far it got. */
function copyPart(
  source: number,
  at: number,
  end: number,
  target: ImageFile,
  object: string,
  collected: Collected,
): number {
  const buffer = copyBuffer();
  const wanted = Math.min(end - at, buffer.length);
  const got = syscall('pread64', [source, buffer.address, wanted, at], object);
  const length = Math.ceil(got / PAGE_BYTES) * PAGE_BYTES;
  buffer.bytes.fill(0, got, length);
  let from = 0;
  for (let page = 0; page < length; page += PAGE_BYTES) {
    if (isZero(buffer.bytes, page)) {
      write(target, from, page);
      from = page + PAGE_BYTES;
    } else collected.page(at + page);
  }
  write(target, from, length);
  // What lies behind the end of the file reads as nothing.
  return got === 0 ? wanted : length;
}

function isZero(bytes: Uint8Array, at: number): boolean {
  if (bytes[at] !== 0) return false;
  return ZEROS.equals(bytes.subarray(at, at + PAGE_BYTES));
}

function write(file: ImageFile, from: number, to: number): void {
  if (to > from) file.write(copyBuffer().bytes.subarray(from, to));
}
