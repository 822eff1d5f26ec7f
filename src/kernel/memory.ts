import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ, PROT_WRITE } from '../abi/mman.js';
import { cString } from './c-string.js';
import { viewOf } from './ffi.js';
import { syscall } from './syscall.js';

const PAGE = 4096;

/** Memory of this process at an address of its own, for structures the kernel reads or writes. */
export class NativeMemory implements Disposable {
  readonly address: bigint;
  readonly length: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;

  constructor(length: number) {
    this.length = Math.ceil(length / PAGE) * PAGE;
    this.address = BigInt(
      syscall('mmap', [0, this.length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0]),
    );
    const buffer = viewOf(this.address, this.length);
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
  }

  /** SAFETY: `bytes` and `view` must not be used after this; owners drop the object with it. */
  [Symbol.dispose](): void {
    syscall('munmap', [this.address, this.length]);
  }
}

/** Scratch memory for the arguments of one call; whoever uses it is done with it before anything else is called. */
export const scratch = new NativeMemory(64 * 1024);

/** Write a NUL-terminated string to the scratch memory at `offset`; answers its address. */
export function scratchString(text: string, offset = 0): bigint {
  const bytes = cString(text);
  if (offset + bytes.length > scratch.length) throw new RangeError('string longer than the scratch memory');
  scratch.bytes.set(bytes, offset);
  return scratch.address + BigInt(offset);
}

const CHUNK_SIZE = 1 << 20;
/** A longer one would waste too much of a chunk. */
const PIECE_MAX = 1 << 14;
const PIECE_ALIGN = 64;
let chunk = new ArrayBuffer(0);
let used = 0;

/**
 * Zeroed bytes, whose address stays. A buffer of its own costs V8 more than most of what is done with a few kilobytes, and
 * there are several for each thread: so they are pieces of a larger one.
 */
export function zeroed(length: number): Uint8Array<ArrayBuffer> {
  if (length > PIECE_MAX) return new Uint8Array(length);
  if (used + length > chunk.byteLength) {
    chunk = new ArrayBuffer(CHUNK_SIZE);
    used = 0;
  }
  const bytes = new Uint8Array(chunk, used, length);
  used += Math.ceil(length / PIECE_ALIGN) * PIECE_ALIGN;
  return bytes;
}
