import * as U from '../../abi/io-uring.js';
import { MAP_POPULATE, MAP_SHARED, PROT_READ, PROT_WRITE } from '../../abi/mman.js';
import { ImageError } from '../../image/index.js';
import { addressIn, insistEqual } from '../../tape/logic.js';
import type { Space } from '../../tape/tape.js';
import type { Tape, TaskState } from '../contract.js';
import { readRings, type SavedRing, URING_FILE } from './io-uring-codec.js';
import { lengthsOf, offsetIn, strideOf } from './io-uring-layout.js';
import { isLinked, isTimed, type SavedRequest } from './io-uring-requests-codec.js';

/**
 * Operations that were on their way are submitted again by the thread that did, when its descriptors and memory, the
 * ring and all files are there. Submissions count: so the ring was only brought to where it was before them. Entries go
 * where the ring's array leads to, and what the program had there comes back. What is ready by now completes at once,
 * into the ring as it was.
 */
export const ioUringRequests: TaskState = {
  name: 'io_uring operations',
  scope: 'thread',
  support:
    'operations that wait: polls, reads, writes, receives, sends, accepts (multishot too), timeouts with what remains; refused after a few tries: those of workers and disks, chains of links, connects, sends by TCP (but of rings with DEFER_TASKRUN), provided buffers, threads that share a ring',

  restore({ tid, reader }, tape) {
    for (const ring of readRings(reader).values()) if (ring.issuer?.tid === tid) submitAll(tape, ring);
  },
};

/** How far a ring's counter of submissions was before those that are on their way were submitted once more. */
export function headBefore({ sqHead, requests }: Pick<SavedRing, 'sqHead' | 'requests'>): number {
  return sqHead - requests.length;
}

const RW = PROT_READ | PROT_WRITE;
const SHARED = MAP_SHARED | MAP_POPULATE;
/** Seconds and nanoseconds. */
const TIMESPEC = 16;
const NS_PER_S = 1_000_000_000n;

function submitAll(tape: Tape, ring: SavedRing): void {
  const { issuer, offsets } = ring;
  if (issuer === undefined) return;
  const { fd } = issuer;
  tape.about(`operations of io_uring ${fd}`);
  const batches = batchesOf(ring);
  if (batches === undefined) throw new ImageError(URING_FILE, `ring ${ring.id} ${NO_ROOM}`);
  const stride = strideOf(ring.flags);
  const entries = entriesOf(tape, ring);
  const { rings, sqes } = lengthsOf(ring, offsets);
  const page = tape.call('mmap', [0, rings, RW, SHARED, fd, U.IORING_OFF_SQ_RING]);
  const slots = tape.call('mmap', [0, sqes, RW, SHARED, fd, U.IORING_OFF_SQES]);
  const tail = addressIn(tape, page, offsetIn(offsets, 'sqTail'));
  const kept = tape.call('memfd_create', [tape.string(''), 0]);
  tape.call('pwrite64', [kept, slots, sqes, 0], sqes);
  // Addresses cannot be added to by much, but offsets are known: a file like the ring, empty where nothing is to be.
  const file = tape.call('memfd_create', [tape.string(''), 0]);
  tape.call('ftruncate', [file, sqes]);
  const tails = tape.space(tailsOf(ring, batches));
  tape.call('pwrite64', [file, tails, tails.length, sqes], tails.length);
  let done = 0;
  batches.forEach((batch, index) => {
    for (const { slot, count } of runsOf(batch)) {
      const length = count * stride;
      const source = { kind: 'inside', space: entries, at: done * stride } as const;
      tape.call('pwrite64', [file, source, length, slot * stride], length);
      done += count;
    }
    tape.call('pread64', [file, slots, sqes, 0], sqes);
    tape.call('pread64', [file, tail, 4, sqes + 4 * index], 4);
    tape.call('io_uring_enter', [fd, batch.length, 0, 0, 0, 0], batch.length);
  });
  insistEqual(tape, addressIn(tape, page, offsetIn(offsets, 'sqHead')), ring.sqHead);
  tape.call('pread64', [kept, slots, sqes, 0], sqes);
  tape.call('pread64', [file, tail, 4, sqes + 4 * batches.length], 4);
  tape.call('munmap', [page, rings]);
  tape.call('munmap', [slots, sqes]);
  for (const each of [kept, file]) tape.call('close', [each]);
}

const NO_ROOM = 'has an array of submissions that leads nowhere, or two to the same place';

type Submitted = Pick<SavedRing, 'flags' | 'sqEntries' | 'offsets' | 'sqHead' | 'requests' | 'rings'>;

/**
 * Slots, of as many at once as there are different ones for; an operation and its timeout go together. Undefined where
 * the array does not allow it: it names none that is there.
 */
function batchesOf(ring: Submitted): number[][] | undefined {
  const { flags, sqEntries, offsets, requests } = ring;
  const rings = Buffer.from(ring.rings.buffer, ring.rings.byteOffset, ring.rings.length);
  const slotOf = (index: number) => {
    const place = (headBefore(ring) + index) % sqEntries;
    if ((flags & U.IORING_SETUP_NO_SQARRAY) !== 0) return place;
    return rings.readUInt32LE(offsetIn(offsets, 'array') + 4 * place);
  };
  const batches: number[][] = [];
  let batch = new Set<number>();
  for (let index = 0; index < requests.length; ) {
    const request = requests[index];
    const count = request !== undefined && isLinked(request) ? 2 : 1;
    const slots = Array.from({ length: count }, (_, more) => slotOf(index + more));
    if (slots.some((slot) => slot >= sqEntries) || new Set(slots).size < count) return undefined;
    if (slots.some((slot) => batch.has(slot))) {
      batches.push([...batch]);
      batch = new Set();
    }
    for (const slot of slots) batch.add(slot);
    index += count;
  }
  return [...batches, [...batch]];
}

/** Slots that lie one behind the other. */
function runsOf(batch: readonly number[]): { slot: number; count: number }[] {
  const runs: { slot: number; count: number }[] = [];
  for (const slot of batch) {
    const last = runs.at(-1);
    if (last !== undefined && slot === last.slot + last.count) last.count++;
    else runs.push({ slot, count: 1 });
  }
  return runs;
}

/** All entries, as far apart as the ring has them. */
function entriesOf(tape: Tape, { requests, flags }: SavedRing): Space {
  const stride = strideOf(flags);
  const bytes = new Uint8Array(requests.length * stride);
  requests.forEach(({ sqe }, index) => {
    bytes.set(sqe, index * stride);
  });
  const entries = tape.space(bytes);
  const times = tape.space(timespecs(requests));
  requests.forEach((request, index) => {
    const time = { kind: 'inside', space: times, at: TIMESPEC * index } as const;
    if (isTimed(request)) tape.pointer(entries, index * stride + U.SQE.addr, time);
  });
  return entries;
}

function timespecs(requests: readonly SavedRequest[]): Uint8Array {
  const bytes = new Uint8Array(requests.some(isTimed) ? requests.length * TIMESPEC : 0);
  const view = new DataView(bytes.buffer);
  requests.forEach(({ time }, index) => {
    if (time === undefined) return;
    view.setBigUint64(index * TIMESPEC, time / NS_PER_S, true);
    view.setBigUint64(index * TIMESPEC + 8, time % NS_PER_S, true);
  });
  return bytes;
}

/** What the ring's tail is to be for each batch, and in the end. */
function tailsOf(ring: SavedRing, batches: readonly (readonly number[])[]): Uint8Array {
  const bytes = new Uint8Array(4 * (batches.length + 1));
  const view = new DataView(bytes.buffer);
  let tail = headBefore(ring);
  batches.forEach((batch, index) => {
    tail += batch.length;
    view.setUint32(4 * index, tail, true);
  });
  bytes.set(ring.rings.subarray(offsetIn(ring.offsets, 'sqTail')).subarray(0, 4), 4 * batches.length);
  return bytes;
}

/** Why they cannot be submitted by a thread; a first thread has room for more on its tape than others. */
export function submissionProblem(ring: Submitted, isLeader: boolean): string | undefined {
  const batches = batchesOf(ring);
  if (batches === undefined) return `it ${NO_ROOM}`;
  const calls = batches.reduce((sum, batch) => sum + runsOf(batch).length + 4, CALLS);
  const room = ring.requests.length * (strideOf(ring.flags) + TIMESPEC) + calls * CALL;
  return room <= (isLeader ? LEADER_ROOM : THREAD_ROOM)
    ? undefined
    : `${ring.requests.length} operations of one thread are on their way, which are too many at once`;
}

/** Bytes of a tape: what each call takes, how many there are but for batches, and half of what tapes may have. */
const CALL = 96;
const CALLS = 24;
const LEADER_ROOM = 8 << 20;
const THREAD_ROOM = 32 << 10;
