import { closeSync, readdirSync, readFileSync, readSync } from 'node:fs';
import { MREMAP_FIXED, MREMAP_MAYMOVE, PAGE_SIZE } from '../../abi/mman.js';
import { ImageError } from '../../image/errors.js';
import { readRemote } from '../../kernel/remote.js';
import { sleep_us } from '../../kernel/syscall.js';
import type { Tape } from '../../tape/tape.js';
import { type DumpContext, nameOf, type Played, type Process, type ProcessImage } from '../contract.js';
import { mmOf } from './image-memory.js';
import { cut } from './inherit.js';
import { eachRunOfProcess, type Run, readRunsTo } from './runs.js';
import type { Taken } from './taken.js';
import { nameOfMapping, type Vma } from './vma.js';

/**
 * Asynchronous I/O, io_setup(2): a context's id is the address of its ring, a mapping of the file `[aio]` that begins
 * with struct aio_ring (id, number of events, head, tail, …; fs/aio.c) and holds the events nobody has taken yet. Head and
 * events are the program's to write, the tail is the kernel's, which advances it by one for every operation that
 * completes: so a restored context completes as many reads of nothing as bring it to where it was, and then gets the
 * events of the image. A child has its parent's ring mapped, but not the context; there it is mere memory.
 *
 * Operations that are on their way nobody can see. Those on disks complete by themselves, so the pause lasts until no disk
 * has anything to do; where that does not come soon, a ring that still moves is tried again. One that waits for a pipe or
 * a socket (IOCB_CMD_POLL) is not kept, and its event never comes: CRIU's images are the same.
 */
const HEADER = { size: 32, nr: 4, head: 8, tail: 12 };
const EVENT_SIZE = 32;

interface Ring {
  readonly start: bigint;
  readonly isContext: boolean;
  /** Head and tail, when the process was asked. */
  readonly position: string;
}

/** Where rings were seen before the freeze, by pid, so that only few are asked about them. */
const seen = new Map<number, readonly bigint[]>();

export function noteRings(pid: number, vmas: readonly Vma[]): void {
  const rings = vmas.filter(({ backing }) => backing === 'ring').map(({ mapping }) => mapping.start);
  if (rings.length === 0) seen.delete(pid);
  else seen.set(pid, rings);
}

/** Processes without rings are asked the same; who has some is asked about his own. */
export function variantOfRings({ pid }: Process): string {
  return seen.has(pid) ? String(pid) : '';
}

const asked = new WeakMap<Process, readonly Ring[]>();

/** Is there a context behind a ring? io_getevents(2) of no events says EINVAL where there is none. */
export function askRings(tape: Tape, process: Process): (played: Played, process: Process) => void {
  const probes = (seen.get(process.pid) ?? []).map((start) => ({
    start,
    answer: tape.call('io_getevents', [start, 0, 0, 0, tape.space(16)], 'any'),
  }));
  return (played, process) => {
    const rings = probes.map(({ start, answer }) => {
      const isContext = played.result(answer) === 0n;
      return { start, isContext, position: isContext ? positionOf(process.pid, start) : '' };
    });
    asked.set(process, rings);
  };
}

function positionOf(pid: number, start: bigint): string {
  return Buffer.from(readRemote(pid, start + BigInt(HEADER.head), 8)).toString('hex');
}

/** mm_entry.aios: the contexts, whose number of requests is what io_setup(2) makes a ring of that size of. */
export function ringEntries(process: Process, vmas: readonly Vma[], context: DumpContext) {
  const known = asked.get(process) ?? [];
  const areIdle = !known.some(({ isContext }) => isContext) || waitForDisks();
  return vmas.flatMap(({ mapping, backing }) => {
    if (backing !== 'ring') return [];
    const { start, end } = mapping;
    const ring = known.find((each) => each.start === start);
    if (
      ring === undefined ||
      (!areIdle && ring.isContext && positionOf(process.pid, start) !== ring.position)
    )
      context.retry({
        task: nameOf(process),
        object: nameOfMapping(mapping),
        reason: 'its asynchronous I/O goes on: the ring changes while the process stands still',
        help: 'let the program wait for its operations',
      });
    const ringLen = Number(end - start);
    return ring.isContext ? [{ id: start, nrReq: requestsOf(ringLen), ringLen }] : [];
  });
}

const DISKS_MAX_MS = 50;
const LOOK_AGAIN_US = 500;

/** Whether no disk has requests in progress, now or soon (Documentation/admin-guide/iostats.rst: reads and writes). */
function waitForDisks(): boolean {
  const disks = readdirSync('/sys/block').map((name) => `/sys/block/${name}/inflight`);
  const isBusy = (path: string) => unlessGone(() => /[1-9]/.test(readFileSync(path, 'latin1'))) === true;
  for (const deadline = performance.now() + DISKS_MAX_MS; performance.now() < deadline; ) {
    if (!disks.some(isBusy)) return true;
    sleep_us(LOOK_AGAIN_US);
  }
  return false;
}

/** Disks come and go. */
function unlessGone<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

function eventsOf(length: number): number {
  return Math.floor((length - HEADER.size) / EVENT_SIZE);
}

/** ioctx_alloc doubles the number, and aio_setup_ring adds two and fills the last page. */
function requestsOf(length: number): number {
  return (eventsOf(length) - 2) >> 1;
}

/** Bytes of the ring that io_setup(2) makes here, where it makes room for four events a processor at least. */
function lengthOf(requests: number): number {
  const events = Math.max(requests, possibleProcessors() * 4) * 2 + 2;
  return Math.ceil((HEADER.size + events * EVENT_SIZE) / PAGE_SIZE) * PAGE_SIZE;
}

/** As `0-3,8` in the kernel's list. */
function possibleProcessors(): number {
  const text = readFileSync('/sys/devices/system/cpu/possible', 'utf8').trim();
  return text.split(',').reduce((sum, range) => {
    const [first = 0, last = first] = range.split('-').map(Number);
    return sum + last - first + 1;
  }, 0);
}

/** Entries that make the contexts of a process again. */
export function restoreRings(image: ProcessImage, tape: Tape, taken: Taken): void {
  const { aios, vmas } = mmOf(image);
  for (const { id, nrReq, ringLen } of aios) {
    const name = `${image.name}: the asynchronous I/O context 0x${id.toString(16)}`;
    if (!vmas.some(({ start, end }) => start === id && Number(end - start) === ringLen))
      throw new ImageError(image.reader.directory, `${name} has no ring in memory`);
    if (lengthOf(nrReq) !== ringLen)
      throw new ImageError(
        image.reader.directory,
        `${name} has a ring of ${ringLen} bytes, but this host makes them of ${lengthOf(nrReq)}: it has more processors`,
      );
    tape.about(`asynchronous I/O context 0x${id.toString(16)}`);
    const runs = cut(eachRunOfProcess(image), [{ start: Number(id), end: Number(id) + ringLen }]);
    restoreRing(tape, { id, nrReq, ringLen }, readHeader(image, runs, name, ringLen));
    const events = [{ start: Number(id) + HEADER.size, end: Number(id) + ringLen }];
    readRunsTo(tape, cut(runs, events), taken.pagesOf(image.reader));
  }
}

interface Position {
  readonly head: number;
  readonly unread: number;
}

function readHeader(image: ProcessImage, runs: readonly Run[], name: string, length: number): Position {
  const [first] = runs;
  const bytes = Buffer.alloc(HEADER.size);
  if (first === undefined || first.end - first.start < HEADER.size)
    throw new ImageError(image.reader.directory, `${name} has no contents`);
  const file = first.reader.openPages(first.pagesId);
  try {
    readSync(file, bytes, 0, bytes.length, first.offset);
  } finally {
    closeSync(file);
  }
  const nr = bytes.readUInt32LE(HEADER.nr);
  const head = bytes.readUInt32LE(HEADER.head);
  const tail = bytes.readUInt32LE(HEADER.tail);
  if (nr !== eventsOf(length) || head >= nr || tail >= nr)
    throw new ImageError(image.reader.directory, `${name}: ${head}, ${tail} and ${nr} are no ring`);
  return { head, unread: (tail - head + nr) % nr };
}

/** An empty file: what is read of it is complete at once. */
function restoreRing(
  tape: Tape,
  ring: { id: bigint; nrReq: number; ringLen: number },
  { head, unread }: Position,
): void {
  const { id, nrReq, ringLen } = ring;
  const made = tape.space(8);
  tape.call('io_setup', [nrReq, made]);
  const at = { kind: 'value', at: { kind: 'inside', space: made, at: 0 } } as const;
  tape.call('mremap', [at, ringLen, ringLen, MREMAP_MAYMOVE | MREMAP_FIXED, id], id);
  if (head + unread === 0) return;
  const file = tape.call('memfd_create', [tape.string(''), 0]);
  // Up to half of the slots may be out of reach, put by for other processors (get_reqs_available).
  const most = Math.max(1, Math.min(BATCH_MAX, eventsOf(ringLen) >> 2));
  const request = tape.space(IOCB.size);
  tape.copy(file, request, IOCB.file);
  const batch = tape.space(most * 8);
  for (let index = 0; index < most; index++) tape.pointer(batch, index * 8, request);
  const events = tape.space(most * EVENT_SIZE);
  const submit = (count: number, isTaken: boolean) => {
    for (let left = count; left > 0; left -= most) {
      const now = Math.min(left, most);
      tape.call('io_submit', [id, now, batch], now);
      if (isTaken) tape.call('io_getevents', [id, now, now, events, 0], now);
    }
  };
  submit(head, true);
  submit(unread, false);
  tape.call('close', [file]);
}

const BATCH_MAX = 512;
/** struct iocb, linux/aio_abi.h: all zeros but the file is a pread(2) of no bytes at 0. */
const IOCB = { size: 64, file: 20 };
