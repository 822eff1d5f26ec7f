import * as U from '../../abi/io-uring.js';
import { MAP_POPULATE, MAP_SHARED, PROT_READ, PROT_WRITE } from '../../abi/mman.js';
import { words } from '../../kernel/words.js';
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
import { headBefore } from './io-uring-resubmit.js';

/**
 * A ring's counters are the kernel's own, which goes on from where they are; so a rebuilt ring does as much as the old
 * one ever did: operations that do nothing and complete in silence (IOSQE_CQE_SKIP_SUCCESS) advance the side of
 * submissions, and messages of another ring (IORING_OP_MSG_RING) that of completions.
 */
const RW = PROT_READ | PROT_WRITE;
const SHARED = MAP_SHARED | MAP_POPULATE;

/**
 * Entries that make a ring; its words must lie where the program was told. One that a single task may submit to becomes
 * that of the task that enables it.
 */
export function makeRing(tape: Tape, ring: SavedRing): Result {
  const flags = isSingle(ring) ? ring.flags | U.IORING_SETUP_R_DISABLED : ring.flags;
  const parameters = tape.space(parametersOf({ ...ring, flags }));
  const fd = tape.call('io_uring_setup', [ring.sqEntries, parameters]);
  placesOfOffsets().forEach((place, index) => {
    insistEqual(tape, { kind: 'inside', space: parameters, at: place }, ring.offsets[index] ?? 0);
  });
  return fd;
}

export function isSingle({ submitter }: SavedRing): boolean {
  return submitter !== undefined;
}

/** A ring that can be submitted to; `page` is where its words lie. */
interface Mapped {
  readonly fd: Result | number;
  readonly shape: Shape;
  readonly page: Result;
  readonly length: number;
  readonly tail: Operand;
}

/** Less than all of a ring cannot be mapped; more can, and is not there. */
function map(tape: Tape, fd: Result | number, shape: Shape, offsets: Offsets): Mapped {
  const length = lengthsOf(shape, offsets).rings + shape.sqEntries * 4 + CACHE_LINE;
  const page = tape.call('mmap', [0, length, RW, SHARED, fd, U.IORING_OFF_SQ_RING]);
  return { fd, shape, page, length, tail: addressIn(tape, page, offsetIn(offsets, 'sqTail')) };
}

const CACHE_LINE = 64;

/**
 * Bring the counters of a fresh ring to where they were, before what is on its way was submitted. Nothing may be
 * registered with it yet.
 */
export function advance(tape: Tape, fd: Result | number, ring: SavedRing): void {
  const { offsets, cqTail, cqEntries } = ring;
  const sqHead = headBefore(ring);
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
    const isDeferred = (ring.flags & U.IORING_SETUP_DEFER_TASKRUN) !== 0;
    submit(tape, source, cqTail, (count) => {
      // They arrive when the task asks for them.
      if (isDeferred) tape.call('io_uring_enter', [fd, 0, count, U.IORING_ENTER_GETEVENTS, 0, 0], 0);
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
function writeSubmissions(
  tape: Tape,
  { fd, shape }: Mapped,
  sqe: Uint8Array,
  target?: Result | number,
): void {
  const stride = strideOf(shape.flags);
  const count = (shape.flags & U.IORING_SETUP_NO_SQARRAY) === 0 ? 1 : shape.sqEntries;
  const length = count * stride;
  const bytes = sqe.slice(0, stride);
  if (typeof target === 'number') new DataView(bytes.buffer).setInt32(U.SQE.fd, target, true);
  const pattern = tape.space(bytes);
  if (typeof target === 'object') tape.copy(target, pattern, U.SQE.fd);
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

/** As `advance`, of a ring that has its memory already. */
export function advanceInPlace(tape: Tape, fd: number, ring: SavedRing): void {
  const file = tape.call('memfd_create', [tape.string(''), 0]);
  for (const part of partsOf(ring)) throughMemory(tape, fd, part, 'pwrite64', file);
  const fresh = tape.call('memfd_create', [tape.string(''), 0]);
  tape.call('ftruncate', [fresh, ring.rings.length + ring.sqes.length]);
  writeContents(tape, fd, fresh, ring);
  tape.call('close', [fresh]);
  advance(tape, fd, ring);
  writeContents(tape, fd, file, ring);
  tape.call('close', [file]);
}

/** What lay in the ring's memory: `file` holds both parts, one behind the other. */
export function writeContents(tape: Tape, fd: Result | number, file: Result | number, ring: SavedRing): void {
  for (const part of partsOf(ring)) throughMemory(tape, fd, part, 'pread64', file);
}

/** A part of a ring's memory, and where it is in a file. */
interface Part {
  readonly offset: number;
  readonly at: number;
  readonly length: number;
}

function partsOf({ rings, sqes }: SavedRing): readonly Part[] {
  return [
    { offset: U.IORING_OFF_SQ_RING, at: 0, length: rings.length },
    { offset: U.IORING_OFF_SQES, at: rings.length, length: sqes.length },
  ];
}

function throughMemory(
  tape: Tape,
  fd: Result | number,
  { offset, at, length }: Part,
  call: 'pread64' | 'pwrite64',
  file: Result | number,
): void {
  const address = tape.call('mmap', [0, length, RW, SHARED, fd, offset]);
  tape.call(call, [file, address, length, at], length);
  tape.call('munmap', [address, length]);
}

/** The ring's memory before operations are submitted again: with nothing to submit, until they are. */
export function stagedContents(ring: SavedRing): Uint8Array {
  const rings = Buffer.from(ring.rings);
  if (ring.requests.length > 0)
    for (const word of ['sqHead', 'sqTail'] as const)
      rings.writeUInt32LE(headBefore(ring), offsetIn(ring.offsets, word));
  return Buffer.concat([rings, ring.sqes]);
}

export function registerClock(tape: Tape, fd: Result | number, clock: number): void {
  tape.call('io_uring_register', [fd, U.IORING_REGISTER_CLOCK, tape.space(words([clock, 0, 0, 0])), 0]);
}

/** Of the ring; each task gets them as it begins to use the ring (io_uring/tctx.c __io_uring_add_tctx_node). */
export function registerWorkers(tape: Tape, fd: Result | number, workers: SavedRing['workers']): void {
  if (workers === undefined) return;
  tape.call('io_uring_register', [fd, U.IORING_REGISTER_IOWQ_MAX_WORKERS, tape.space(words(workers)), 2]);
}

export function registerFiles(tape: Tape, fd: Result | number, files: readonly number[], range: Range): void {
  if (files.length === 0) return;
  const numbers = tape.space(words(files));
  tape.call('io_uring_register', [fd, U.IORING_REGISTER_FILES, numbers, files.length]);
  if (range.start === 0 && range.end === files.length) return;
  const part = tape.space(words([range.start, range.end - range.start, 0, 0]));
  tape.call('io_uring_register', [fd, U.IORING_REGISTER_FILE_ALLOC_RANGE, part, 0]);
}

type Range = SavedRing['fileRange'];

export function registerEventfd(tape: Tape, fd: Result | number, eventfd: number, isAsync: boolean): void {
  const how = isAsync ? U.IORING_REGISTER_EVENTFD_ASYNC : U.IORING_REGISTER_EVENTFD;
  tape.call('io_uring_register', [fd, how, tape.space(words([eventfd])), 1]);
}

/** By a task of the process whose memory they are. */
export function registerBuffers(tape: Tape, fd: number, buffers: SavedRing['buffers']): void {
  const vectors = new Uint8Array(buffers.length * 16);
  const view = new DataView(vectors.buffer);
  buffers.forEach(({ address, length }, index) => {
    view.setBigUint64(index * 16, address, true);
    view.setBigUint64(index * 16 + 8, BigInt(length), true);
  });
  const space = tape.space(vectors);
  tape.call('io_uring_register', [fd, U.IORING_REGISTER_BUFFERS, space, buffers.length]);
}

/** By the thread that is to know it by `number`: struct io_uring_rsrc_update. */
export function registerNumber(tape: Tape, fd: number, number: number): void {
  tape.call(
    'io_uring_register',
    [fd, U.IORING_REGISTER_RING_FDS, tape.space(words([number, 0, fd, 0])), 1],
    1,
  );
}
