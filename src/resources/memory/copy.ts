import { closeSync, openSync, readSync } from 'node:fs';
import { IOV_MAX } from '../../abi/fcntl.js';
import type { ImageFile } from '../../image/target.js';
import { NativeMemory } from '../../kernel/memory.js';
import { attempt } from '../../kernel/syscall.js';
import type { Span } from './scan.js';

/** Pages to be copied one after the other into a pages file. */
export interface CopySpan extends Span {
  /**
   * False where process_vm_readv(2) gets EFAULT, that is without PROT_READ. There /proc/PID/mem serves, slower: it
   * reads whatever is mapped (FOLL_FORCE).
   */
  readonly readable: boolean;
}

const BUFFER_SIZE = 1024 * 1024;
let buffer: NativeMemory | undefined;

/** The one buffer all contents go through, so that memory use does not depend on what is copied. */
export function copyBuffer(): NativeMemory {
  buffer ??= new NativeMemory(BUFFER_SIZE);
  return buffer;
}

/** Append the first `length` bytes of the copy buffer to a file of the image. */
function writeBuffer(file: ImageFile, length: number): void {
  file.write(copyBuffer().bytes.subarray(0, length));
}

/** Whose pages they are. */
export interface CopySource {
  readonly pid: number;
  /**
   * It has pages in common with others since a fork. process_vm_readv(2) pins what it reads, and before that the kernel
   * gives the process a page of its own (mm/gup.c gup_must_unshare): twice the time, and all that memory.
   */
  readonly isShared: boolean;
}

/**
 * Append the contents of `spans` of the process `pid`, whose threads are stopped, to a file of the image.
 * `task` is for messages. Throws when a page is not there (any more), and when the disk is full.
 */
export function copyPages(
  { pid, isShared }: CopySource,
  spans: Iterable<CopySpan>,
  file: ImageFile,
  task: string,
): void {
  const batch = new Batch(pid, isShared, file, task);
  try {
    for (const span of spans) batch.add(span);
    batch.flush();
  } finally {
    batch[Symbol.dispose]();
  }
}

/** Two struct iovec tables: the pieces there, and the one buffer here. */
const VECTOR_SIZE = 16;
const vectors = new NativeMemory((IOV_MAX + 1) * VECTOR_SIZE);
const LOCAL_VECTOR = IOV_MAX * VECTOR_SIZE;

function putNumber(at: number, value: number): void {
  vectors.view.setUint32(at, value >>> 0, true);
  vectors.view.setUint32(at + 4, Math.floor(value / 0x1_0000_0000), true);
}

function getNumber(at: number): number {
  return vectors.view.getUint32(at, true) + vectors.view.getUint32(at + 4, true) * 0x1_0000_0000;
}

/** Pieces are written down as numbers, not objects: a process can have hundreds of thousands. */
class Batch implements Disposable {
  readonly #pid: number;
  readonly #isShared: boolean;
  readonly #file: ImageFile;
  readonly #task: string;
  #pieces = 0;
  #length = 0;
  #readable = true;
  #memory = -1;

  constructor(pid: number, isShared: boolean, file: ImageFile, task: string) {
    this.#pid = pid;
    this.#isShared = isShared;
    this.#file = file;
    this.#task = task;
  }

  add({ start, end, readable }: CopySpan): void {
    if (readable !== this.#readable) this.flush();
    this.#readable = readable;
    for (let at = start; at < end; ) {
      if (this.#length === BUFFER_SIZE || this.#pieces === IOV_MAX) this.flush();
      const length = Math.min(end - at, BUFFER_SIZE - this.#length);
      putNumber(this.#pieces * VECTOR_SIZE, at);
      putNumber(this.#pieces * VECTOR_SIZE + 8, length);
      this.#pieces++;
      this.#length += length;
      at += length;
    }
  }

  flush(): void {
    if (this.#length === 0) return;
    const got = this.#readable && !this.#isShared ? this.#gather() : 0;
    if (got !== this.#length) this.#readMemory();
    writeBuffer(this.#file, this.#length);
    this.#pieces = 0;
    this.#length = 0;
  }

  /** process_vm_readv(2); less than asked, or −errno, where a page cannot be read. */
  #gather(): number {
    const { address } = copyBuffer();
    vectors.view.setBigUint64(LOCAL_VECTOR, address, true);
    putNumber(LOCAL_VECTOR + 8, this.#length);
    const local = vectors.address + BigInt(LOCAL_VECTOR);
    return attempt('process_vm_readv', [this.#pid, local, 1, vectors.address, this.#pieces, 0]);
  }

  #readMemory(): void {
    if (this.#memory < 0) this.#memory = openSync(`/proc/${this.#pid}/mem`, 'r');
    const { bytes } = copyBuffer();
    let into = 0;
    for (let piece = 0; piece < this.#pieces; piece++) {
      const start = getNumber(piece * VECTOR_SIZE);
      const length = getNumber(piece * VECTOR_SIZE + 8);
      for (let done = 0; done < length; ) {
        const count = readSync(this.#memory, bytes, into + done, length - done, start + done);
        if (count === 0)
          throw new Error(`${this.#task}: the page at 0x${(start + done).toString(16)} has vanished`);
        done += count;
      }
      into += length;
    }
  }

  [Symbol.dispose](): void {
    if (this.#memory >= 0) closeSync(this.#memory);
    this.#memory = -1;
  }
}
