import * as U from '../../abi/io-uring.js';
import { MAP_SHARED, PROT_READ } from '../../abi/mman.js';
import { OwnedFd } from '../../kernel/fd.js';
import { viewOf } from '../../kernel/ffi.js';
import { scratch } from '../../kernel/memory.js';
import { syscall } from '../../kernel/syscall.js';

/** How rings lie in memory, which a program is told once, by io_uring_setup(2), and relies on from then on. */
export interface Shape {
  /** IORING_SETUP_* */
  readonly flags: number;
  readonly sqEntries: number;
  readonly cqEntries: number;
}

/** The first words of struct io_sqring_offsets and struct io_cqring_offsets; see ORDER. */
export type Offsets = readonly number[];

/** Where in `Offsets` the words are that matter here. */
const ORDER = { sqHead: 0, sqTail: 1, sqFlags: 4, array: 6, cqHead: 7, cqTail: 8, cqes: 12 } as const;

export function offsetIn(offsets: Offsets, name: keyof typeof ORDER): number {
  return offsets[ORDER[name]] ?? 0;
}

export const OFFSETS_LENGTH = 2 * U.OFFSETS_COUNT;

/** Flags that only mattered while a ring was set up: limits of its size, workers that are its tasks' by now. */
const SETTLED = U.IORING_SETUP_CLAMP | U.IORING_SETUP_ATTACH_WQ;

/** struct io_uring_params, for a ring of a shape. */
export function parametersOf({ flags, cqEntries }: Shape): Uint8Array {
  const bytes = new Uint8Array(U.PARAMS.size);
  const view = new DataView(bytes.buffer);
  view.setUint32(U.PARAMS.cqEntries, cqEntries, true);
  view.setUint32(U.PARAMS.flags, (flags & ~SETTLED) | U.IORING_SETUP_CQSIZE, true);
  return bytes;
}

/** Where the words of `Offsets` are in struct io_uring_params. */
export function placesOfOffsets(): number[] {
  const places = (start: number) => Array.from({ length: U.OFFSETS_COUNT }, (_, index) => start + 4 * index);
  return [...places(U.PARAMS.sqOffsets), ...places(U.PARAMS.cqOffsets)];
}

/** A ring of that shape is made, and closed again: where the words of such a one lie. Throws where there can be none. */
export function offsetsOf(shape: Shape): Offsets {
  const { bytes, view, address } = scratch;
  bytes.set(parametersOf(shape));
  using ring = new OwnedFd(syscall('io_uring_setup', [shape.sqEntries, address], 'a ring of the same shape'));
  if (ring.fd < 0) throw new Error('a ring without a descriptor');
  return placesOfOffsets().map((place) => view.getUint32(place, true));
}

/** Bytes of the ring's words with its completions and the array of submissions, and of the submissions. */
export function lengthsOf({ flags, sqEntries, cqEntries }: Shape, offsets: Offsets) {
  const cqe = (flags & U.IORING_SETUP_CQE32) === 0 ? 16 : 32;
  const array = (flags & U.IORING_SETUP_NO_SQARRAY) === 0 ? offsetIn(offsets, 'array') + sqEntries * 4 : 0;
  const rings = Math.max(array, offsetIn(offsets, 'cqes') + cqEntries * cqe);
  return { rings, sqes: sqEntries * strideOf(flags) };
}

/** Bytes from one submission to the next. */
export function strideOf(flags: number): number {
  return (flags & U.IORING_SETUP_SQE128) === 0 ? U.SQE.size : 2 * U.SQE.size;
}

/** What lies in a ring's memory, read through a descriptor of this process. */
export function readContents(fd: number, shape: Shape, offsets: Offsets): { rings: Buffer; sqes: Buffer } {
  const { rings, sqes } = lengthsOf(shape, offsets);
  return {
    rings: readMapped(fd, U.IORING_OFF_SQ_RING, rings),
    sqes: readMapped(fd, U.IORING_OFF_SQES, sqes),
  };
}

function readMapped(fd: number, offset: number, length: number): Buffer {
  const address = BigInt(syscall('mmap', [0, length, PROT_READ, MAP_SHARED, fd, offset], 'a ring'));
  const bytes = Buffer.from(new Uint8Array(viewOf(address, length)));
  syscall('munmap', [address, length]);
  return bytes;
}
