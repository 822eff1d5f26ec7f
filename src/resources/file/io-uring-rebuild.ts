import * as U from '../../abi/io-uring.js';
import { MAP_POPULATE, MAP_SHARED, PROT_READ, PROT_WRITE } from '../../abi/mman.js';
import { addressIn, addTo, insistEqual, repeat } from '../../tape/logic.js';
import type { Operand } from '../../tape/tape.js';
import type { Result, Tape } from '../contract.js';
import type { SavedRing } from './io-uring-codec.js';
import {
  lengthsOf,
  type Offsets,
  offsetIn,
  parametersOf,
  placesOfOffsets,
  type Shape,
  strideOf,
} from './io-uring-layout.js';

/**
 * A ring's counters are the kernel's own, which goes on from where they are; so a rebuilt ring does as much as the old
 * one ever did: operations that do nothing and complete in silence (IOSQE_CQE_SKIP_SUCCESS) advance the side of
 * submissions, and messages of another ring (IORING_OP_MSG_RING) that of completions.
 */
const RW = PROT_READ | PROT_WRITE;
const SHARED = MAP_SHARED | MAP_POPULATE;

/** Entries that make a ring; its words must lie where the program was told. */
export function makeRing(tape: Tape, ring: SavedRing): Result {
  const parameters = tape.space(parametersOf(ring));
  const fd = tape.call('io_uring_setup', [ring.sqEntries, parameters]);
  placesOfOffsets().forEach((place, index) => {
    insistEqual(tape, { kind: 'inside', space: parameters, at: place }, ring.offsets[index] ?? 0);
  });
  return fd;
}

/** A ring that can be submitted to; `page` is where its words lie. */
interface Mapped {
  readonly fd: Result;
  readonly shape: Shape;
  readonly page: Result;
  readonly length: number;
  readonly tail: Operand;
}

/** Less than all of a ring cannot be mapped; more can, and is not there. */
function map(tape: Tape, fd: Result, shape: Shape, offsets: Offsets): Mapped {
  const length = lengthsOf(shape, offsets).rings + shape.sqEntries * 4 + CACHE_LINE;
  const page = tape.call('mmap', [0, length, RW, SHARED, fd, U.IORING_OFF_SQ_RING]);
  return { fd, shape, page, length, tail: addressIn(tape, page, offsetIn(offsets, 'sqTail')) };
}

const CACHE_LINE = 64;

/** Bring the counters of a fresh ring to where they were. Nothing may be registered with it yet. */
export function advance(tape: Tape, fd: Result, ring: SavedRing): void {
  const { offsets, sqHead, cqTail, cqEntries } = ring;
  if (sqHead === 0 && cqTail === 0) return;
  const target = map(tape, fd, ring, offsets);
  if (sqHead > 0) {
    writeSubmissions(tape, target, silent(U.IORING_OP_NOP));
    submit(tape, target, sqHead);
  }
  if (cqTail > 0) {
    // Messages find room: as many as there is are taken for read at once.
    const head = addressIn(tape, target.page, offsetIn(offsets, 'cqHead'));
    const source = messenger(tape, Math.min(cqEntries, BATCH_MAX), offsets);
    writeSubmissions(tape, source, silent(U.IORING_OP_MSG_RING), fd);
    submit(tape, source, cqTail, (count) => {
      addTo(tape, head, count);
    });
    tape.call('munmap', [source.page, source.length]);
    tape.call('close', [source.fd]);
  }
  insistEqual(tape, addressIn(tape, target.page, offsetIn(offsets, 'sqHead')), sqHead);
  insistEqual(tape, addressIn(tape, target.page, offsetIn(offsets, 'cqTail')), cqTail);
  tape.call('munmap', [target.page, target.length]);
}

const BATCH_MAX = 1024;

/** The words lie where those of any other ring do. */
function messenger(tape: Tape, entries: number, offsets: Offsets): Mapped {
  const shape = { flags: U.IORING_SETUP_CQSIZE, sqEntries: entries, cqEntries: entries };
  const fd = tape.call('io_uring_setup', [entries, tape.space(parametersOf(shape))]);
  return map(tape, fd, shape, offsets);
}

function silent(opcode: number): Uint8Array {
  const sqe = new Uint8Array(2 * U.SQE.size);
  sqe[U.SQE.opcode] = opcode;
  sqe[U.SQE.flags] = U.IOSQE_CQE_SKIP_SUCCESS;
  return sqe;
}

/** Every submission is to be this one: an array of zeros names the first; where there is no array, all are written. */
function writeSubmissions(tape: Tape, { fd, shape }: Mapped, sqe: Uint8Array, target?: Result): void {
  const stride = strideOf(shape.flags);
  const count = (shape.flags & U.IORING_SETUP_NO_SQARRAY) === 0 ? 1 : shape.sqEntries;
  const length = count * stride;
  const pattern = tape.space(sqe.slice(0, stride));
  if (target !== undefined) tape.copy(target, pattern, U.SQE.fd);
  const file = tape.call('memfd_create', [tape.string(''), 0]);
  repeat(tape, count, () => tape.call('write', [file, pattern, stride], stride));
  const all = shape.sqEntries * stride;
  const at = tape.call('mmap', [0, all, RW, SHARED, fd, U.IORING_OFF_SQES]);
  tape.call('pread64', [file, at, length, 0], length);
  tape.call('munmap', [at, all]);
  tape.call('close', [file]);
}

/** Submit `count` operations, all of a ring's at once; `after` follows each batch, of a power of two. */
function submit(
  tape: Tape,
  { fd, shape, tail }: Mapped,
  count: number,
  after: (count: number) => void = () => {},
): void {
  const { sqEntries } = shape;
  const batch = (size: number) => {
    addTo(tape, tail, size);
    tape.call('io_uring_enter', [fd, size, 0, 0, 0, 0], size);
    after(size);
  };
  repeat(tape, Math.floor(count / sqEntries), () => {
    batch(sqEntries);
  });
  for (let size = sqEntries >> 1; size > 0; size >>= 1) if ((count & size) !== 0) batch(size);
}

/** What lay in the ring's memory: `file` holds both parts, one behind the other. */
export function writeContents(tape: Tape, fd: Result | number, file: Result | number, ring: SavedRing): void {
  const { rings, sqes } = ring;
  const parts = [
    { offset: U.IORING_OFF_SQ_RING, at: 0, length: rings.length },
    { offset: U.IORING_OFF_SQES, at: rings.length, length: sqes.length },
  ];
  for (const { offset, at, length } of parts) {
    const address = tape.call('mmap', [0, length, RW, SHARED, fd, offset]);
    tape.call('pread64', [file, address, length, at], length);
    tape.call('munmap', [address, length]);
  }
}

/** What is registered with it but files of the tree. */
export function registerClock(tape: Tape, fd: Result, clock: number): void {
  const bytes = new Uint8Array(16);
  new DataView(bytes.buffer).setUint32(0, clock, true);
  tape.call('io_uring_register', [fd, U.IORING_REGISTER_CLOCK, tape.space(bytes), 0]);
}
