import { closeSync, openSync, readSync } from 'node:fs';
import { NativeMemory } from '../../kernel/memory.js';
import { gatherRemote, IOV_MAX, type RemoteRange } from '../../kernel/remote.js';
import { syscall } from '../../kernel/syscall.js';
import type { Span } from './scan.js';

/** Pages to be copied one after the other into a pages file. */
export interface CopySpan extends Span {
  /**
   * False where process_vm_readv(2) gets EFAULT, that is without PROT_READ. There /proc/PID/mem serves, slower: it
   * reads whatever is mapped (FOLL_FORCE).
   */
  readonly readable: boolean;
}

const BUFFER_SIZE = 4 * 1024 * 1024;
let buffer: NativeMemory | undefined;

/** The one buffer all contents go through, so that memory use does not depend on what is copied. */
export function copyBuffer(): NativeMemory {
  buffer ??= new NativeMemory(BUFFER_SIZE);
  return buffer;
}

/** Write the first `length` bytes of the copy buffer at the position of `fd`. */
export function writeBuffer(fd: number, length: number, object: string): void {
  const { address } = copyBuffer();
  for (let done = 0; done < length; )
    done += syscall('write', [fd, address + BigInt(done), length - done], object);
}

/**
 * Append the contents of `spans` of the process `pid`, whose threads are stopped, to the file `fd`.
 * `task` is for messages. Throws when a page is not there (any more), and when the disk is full.
 */
export function copyPages(pid: number, spans: Iterable<CopySpan>, fd: number, task: string): void {
  const batch = new Batch(pid, fd, task);
  try {
    for (const span of spans) batch.add(span);
    batch.flush();
  } finally {
    batch[Symbol.dispose]();
  }
}

class Batch implements Disposable {
  readonly #pid: number;
  readonly #fd: number;
  readonly #task: string;
  #ranges: RemoteRange[] = [];
  #length = 0;
  #readable = true;
  #memory = -1;

  constructor(pid: number, fd: number, task: string) {
    this.#pid = pid;
    this.#fd = fd;
    this.#task = task;
  }

  add({ start, end, readable }: CopySpan): void {
    if (readable !== this.#readable) this.flush();
    this.#readable = readable;
    for (let at = start; at < end; ) {
      if (this.#length === BUFFER_SIZE || this.#ranges.length === IOV_MAX) this.flush();
      const length = Math.min(end - at, BUFFER_SIZE - this.#length);
      this.#ranges.push({ address: BigInt(at), length });
      this.#length += length;
      at += length;
    }
  }

  flush(): void {
    if (this.#length === 0) return;
    const got = this.#readable ? gatherRemote(this.#pid, copyBuffer().address, this.#ranges) : 0;
    if (got !== this.#length) this.#readMemory();
    writeBuffer(this.#fd, this.#length, `pages of ${this.#task}`);
    this.#ranges = [];
    this.#length = 0;
  }

  #readMemory(): void {
    if (this.#memory < 0) this.#memory = openSync(`/proc/${this.#pid}/mem`, 'r');
    const { bytes } = copyBuffer();
    let at = 0;
    for (const { address, length } of this.#ranges) {
      for (let done = 0; done < length; ) {
        const position = address + BigInt(done);
        const count = readSync(this.#memory, bytes, at + done, length - done, position);
        if (count === 0)
          throw new Error(
            `${this.#task}: the page at 0x${position.toString(16)} cannot be read (it has vanished)`,
          );
        done += count;
      }
      at += length;
    }
  }

  [Symbol.dispose](): void {
    if (this.#memory >= 0) closeSync(this.#memory);
    this.#memory = -1;
  }
}
