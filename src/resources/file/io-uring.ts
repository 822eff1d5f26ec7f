import { O_CLOEXEC } from '../../abi/fcntl.js';
import * as U from '../../abi/io-uring.js';
import { MFD_CLOEXEC } from '../../abi/mman.js';
import { CLOCK_MONOTONIC } from '../../abi/process.js';
import { writeAll } from '../../image/directory.js';
import { createMessage, ImageError } from '../../image/index.js';
import { KernelMemoryError } from '../../kernel/bpf/error.js';
import { SyscallError } from '../../kernel/errors.js';
import { OwnedFd } from '../../kernel/fd.js';
import { scratchString } from '../../kernel/memory.js';
import { ProcfsError } from '../../kernel/procfs/error.js';
import { syscall } from '../../kernel/syscall.js';
import {
  type Descriptor,
  type DumpContext,
  type FileKind,
  type file_entry,
  type Holder,
  nameOf,
  type Process,
  type Refusal,
  type Refuse,
} from '../contract.js';
import { takeIfOpen } from '../description/calls.js';
import { objectOf, refusalOf, refuseNow } from '../description/described.js';
import { descriptorsOf } from '../description/open.js';
import { outsiderOf } from '../description/outsider.js';
import { dumpOwner, restoreOwner } from '../description/owner.js';
import { perDump } from '../description/state.js';
import { setStatusFlags } from '../description/status-flags.js';
import { treeOf } from '../description/tree.js';
import { FD_TYPE } from '../description/types.js';
import {
  COUNTER_MAX,
  encodeRings,
  RingBudget,
  readRings,
  type SavedRing,
  URING_FILE,
} from './io-uring-codec.js';
import { type InFlight, inFlightOf } from './io-uring-in-flight.js';
import { lengthsOf, offsetIn, offsetsOf, readContents } from './io-uring-layout.js';
import { OpenFiles, ownersOf, ringNumbers } from './io-uring-owners.js';
import {
  advance,
  advanceInPlace,
  isSingle,
  makeRing,
  registerBuffers,
  registerClock,
  registerEventfd,
  registerFiles,
  registerNumber,
  registerWorkers,
  stagedContents,
  writeContents,
} from './io-uring-rebuild.js';
import type { Problem } from './io-uring-request-kinds.js';
import { submissionProblem } from './io-uring-resubmit.js';
import { hasBoundWorkers, readRing } from './io-uring-state.js';

/**
 * io_uring(7): two rings in shared memory, which the kernel and the program go round, and what is registered with them.
 * What the kernel keeps of one is read in its own memory (io-uring-state.ts). A ring is made anew of the same shape,
 * brought to where its counters were (io-uring-rebuild.ts), and gets its memory back: completions that were not read,
 * submissions that were not submitted. Operations on their way are submitted again (io-uring-in-flight.ts,
 * io-uring-resubmit.ts), or waited for. files.img names it as an external file, which CRIU refuses without a plugin.
 */
interface Pending {
  readonly descriptor: Descriptor;
  readonly saved: Omit<SavedRing, 'files' | 'eventfd' | 'buffers' | 'numbers' | 'requests'>;
  /** Operations on their way. */
  readonly inFlight: number;
}

const pending = perDump<Pending[]>(() => []);
const complete = perDump<SavedRing[]>(() => []);

const HELP =
  'let the program close it, or start it with io_uring turned off (io_uring_disabled, UV_USE_IO_URING=0)';

export const ioUring: FileKind = {
  name: 'io_uring',
  support:
    'rings: counters, unread completions, unsubmitted entries, registered files, buffers, eventfds, ring numbers and limits of workers, mappings (from Linux 6.16, with BTF); operations that wait are submitted again, others waited for; refused: SQPOLL, IOPOLL, NO_MMAP, restrictions, provided buffers, credentials, CPUs of workers, more than 16 million operations',
  member: 'ext',

  recognise: ({ info }) => info.link === 'anon_inode:[io_uring]',

  restores: ({ id }, reader) => readRings(reader).has(id),

  check(descriptor, refuse) {
    using taken = takeIfOpen(descriptor.process.pid, descriptor.fd, objectOf(descriptor));
    if (taken === undefined) return;
    for (const problem of problemsOf(descriptor, taken.fd)) refuse(refusalOf(descriptor, problem, HELP));
  },

  checkAll(descriptors, refuse) {
    checkOwners(descriptors, refuse);
  },

  dump(descriptor, id, taken, context) {
    const [problem] = problemsOf(descriptor, taken);
    if (problem !== undefined) refuseNow(context, descriptor, problem, HELP);
    const ring = readRing(taken);
    const offsets = offsetsOf(ring);
    const { flags, sqEntries, cqEntries, sqHead, cqTail, clock, workers, fileRange } = ring;
    const fileFlags = descriptor.info.info.flags & ~O_CLOEXEC;
    const shape = { flags, sqEntries, cqEntries, offsets };
    const limits = workers === undefined ? {} : { workers };
    const words = { id, fileFlags, ...shape, sqHead, cqTail, clock, ...limits, fileRange };
    const contents = readContents(taken, ring, offsets);
    const wordAt = (word: 'sqHead' | 'cqTail') => contents.rings.readUInt32LE(offsetIn(offsets, word));
    if (wordAt('sqHead') !== sqHead || wordAt('cqTail') !== cqTail)
      retryBusy([[descriptor, MOVING]], context);
    // Nobody has work to do in a ring that is rebuilt.
    const wordsAt = offsetIn(offsets, 'sqFlags');
    contents.rings.writeUInt32LE(contents.rings.readUInt32LE(wordsAt) & ~U.IORING_SQ_TASKRUN, wordsAt);
    const saved = { ...words, ...contents };
    pending(context).push({ descriptor, saved, inFlight: ring.inFlight });
    const ext = { id, fown: dumpOwner(descriptor, taken, context) };
    return createMessage('files', { type: FD_TYPE.ext, id, ext });
  },

  conclude(context) {
    const all = pending(context);
    if (all.length === 0) return;
    const open = new OpenFiles(context.files.found);
    const numbers = open.processes.flatMap((process) => numbersOf(process, open, context));
    const busy: Busy[] = [];
    for (const each of all) complete(context).push(completed(each, { open, numbers, busy }, context));
    if (busy.length > 0) retryBusy(busy, context);
  },

  write(context) {
    const rings = complete(context);
    if (rings.length > 0) context.writer.writeBytes(URING_FILE, [encodeRings(rings)]);
  },

  open(entry, holder) {
    const ring = ringOf(entry, holder);
    const { tape } = holder;
    const fd = makeRing(tape, ring);
    const contents = holder.bring(contentsFile(ring));
    if (!isSingle(ring)) advance(tape, fd, ring);
    writeContents(tape, fd, contents, ring);
    tape.call('close', [contents]);
    if (ring.clock !== CLOCK_MONOTONIC) registerClock(tape, fd, ring.clock);
    if (!isSingle(ring)) registerWorkers(tape, fd, ring.workers);
    setStatusFlags(tape, fd, ring.fileFlags);
    restoreOwner(`file:${entry.id}`, entry.ext?.fown, holder);
    return fd;
  },

  connect(entry, holder) {
    const ring = readRings(holder.reader).get(entry.id);
    if (ring === undefined) return;
    const { tape } = holder;
    const { files, fileRange, eventfd } = ring;
    const fd = holder.slot(`file:${entry.id}`);
    const slots = files.map((file) => (file === 0 ? -1 : holder.slot(`file:${file}`)));
    registerFiles(tape, fd, slots, fileRange);
    if (eventfd !== undefined && !isSingle(ring))
      registerEventfd(tape, fd, holder.slot(`file:${eventfd.file}`), eventfd.isAsync);
  },

  attach(entry, fd, tape, table, holder, pid) {
    const ring = readRings(holder.reader).get(entry.id);
    if (ring === undefined) return;
    if (ring.submitter === pid) {
      tape.call('io_uring_register', [fd, U.IORING_REGISTER_ENABLE_RINGS, 0, 0]);
      advanceInPlace(tape, fd, ring);
      registerWorkers(tape, fd, ring.workers);
      const { eventfd } = ring;
      const own = table.find(({ id }) => id === eventfd?.file);
      if (eventfd !== undefined && own === undefined)
        throw new ImageError(URING_FILE, `process ${pid} has no eventfd ${eventfd.file} for ring ${ring.id}`);
      if (eventfd !== undefined && own !== undefined) registerEventfd(tape, fd, own.fd, eventfd.isAsync);
    }
    if (ring.buffersOf === pid) registerBuffers(tape, fd, ring.buffers);
    for (const each of ring.numbers) if (each.pid === pid) registerNumber(tape, fd, each.number);
  },
};

/** Why a ring cannot be saved, whatever the program does next; `fd` is a duplicate of it. */
function problemsOf(descriptor: Descriptor, fd: number): readonly string[] {
  try {
    const ring = readRing(fd);
    const problems = [...ring.problems];
    if (ring.sqHead >= COUNTER_MAX || ring.cqTail >= COUNTER_MAX)
      problems.push(
        `${Math.max(ring.sqHead, ring.cqTail)} operations have gone through it, and no more than ${COUNTER_MAX} are gone through again`,
      );
    const napi = descriptor.info.info.fields.get('NAPI') ?? 'disabled';
    if (napi !== 'disabled') problems.push(`it polls network devices (NAPI: ${napi})`);
    if (problems.length === 0) offsetsOf(ring);
    return problems;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return [`what the kernel keeps of it cannot be seen, or made again (${why})`];
  }
}

/** A ring, and why what is on its way cannot be saved now. */
type Busy = readonly [descriptor: Descriptor, reason: string];

const MOVING = 'it changes while the tree stands still';
const REASONS_MAX = 8;

/** All reasons at once, those of other rings in the words for the first. */
function retryBusy(all: readonly Busy[], context: DumpContext): never {
  const [first, ...others] = all;
  if (first === undefined) throw new Error('no ring is busy');
  const [descriptor, reason] = first;
  const more = others.map(([other, why]) => `; ${objectOf(other)} of ${nameOf(other.process)}: ${why}`);
  return context.retry(refusalOf(descriptor, `${reason}${more.join('')}`, HELP_BUSY));
}

const HELP_BUSY = 'let the program cancel them, or wait until they are done';

function reasonOf(problems: readonly Problem[]): string {
  const some = problems.slice(0, REASONS_MAX).map(({ problem }) => problem);
  const rest = problems.length - some.length;
  return some.join('; ') + (rest > 0 ? `; and ${rest} more` : '');
}

/* ---------- what is registered, as files and processes of the tree ---------- */

/**
 * Before the freeze, and in it once more: what is registered with rings has to be open in the tree, and who may submit to
 * be of it; nobody else has one; and all together are not too much.
 */
function checkOwners(descriptors: readonly Descriptor[], refuse: Refuse): void {
  // Every ring has an inode of its own.
  const rings = new Map(descriptors.map((descriptor) => [descriptor.info.stat.ino, descriptor]));
  for (const descriptor of rings.values()) {
    const outsider = outsiderOf(descriptor);
    if (outsider !== undefined)
      refuse(refusalOf(descriptor, `pid ${outsider}, which is not of the tree, has it open as well`, HELP));
  }
  const processes = descriptors[0] === undefined ? [] : treeOf(descriptors[0].process);
  const open = ifSeen(
    () => new OpenFiles(processes.flatMap(descriptorsOf).map((descriptor) => ({ descriptor }))),
  );
  if (open === undefined) return;
  const budget = new RingBudget();
  for (const process of processes) {
    const numbers = ifSeen(() => ringNumbers(process, open)) ?? [];
    if (typeof numbers === 'string') refuse(refusalOfNumbers(process, numbers));
    else budget.spend({ bytes: 0, operations: 0, entries: numbers.length });
    const bound = process.threads.find(({ tid }) => ifSeen(() => hasBoundWorkers(tid)));
    if (bound !== undefined) refuse(refusalOfWorkers(process, bound.insideTid));
  }
  for (const descriptor of rings.values()) {
    const looked = ifSeen(() => look(descriptor, open));
    if (looked === undefined) continue;
    if ('problem' in looked.owners) refuse(refusalOf(descriptor, looked.owners.problem, HELP_REGISTERED));
    if (looked.lasting.length > 0) refuse(refusalOf(descriptor, reasonOf(looked.lasting), HELP_BUSY));
    const excess = budget.spend(looked.cost);
    if (excess !== undefined) refuse(refusalOf(descriptor, `there are ${excess}`, HELP));
  }
}

/** Undefined where something ended meanwhile, or cannot be looked at, which the check of each ring has said. */
function ifSeen<T>(see: () => T): T | undefined {
  try {
    return see();
  } catch (error) {
    if (error instanceof SyscallError || error instanceof ProcfsError || error instanceof KernelMemoryError)
      return undefined;
    throw error;
  }
}

function look<T extends { descriptor: Descriptor }>(descriptor: Descriptor, open: OpenFiles<T>) {
  using taken = takeIfOpen(descriptor.process.pid, descriptor.fd, objectOf(descriptor));
  if (taken === undefined) return undefined;
  const ring = readRing(taken.fd);
  // No ring of the same shape is made to measure one that is refused: it might begin to poll.
  const isRefused = ring.problems.length > 0;
  const { rings, sqes } = isRefused ? { rings: 0, sqes: 0 } : lengthsOf(ring, offsetsOf(ring));
  const operations = ring.sqHead + ring.cqTail;
  const entries = ring.files.length + ring.buffers.length + ring.inFlight;
  // What may be over when the tree stands still is waited for then.
  const lasting = isRefused ? [] : inFlightOf(ring, open).problems.filter(({ passes }) => !passes);
  return { owners: ownersOf(ring, open), cost: { bytes: rings + sqes, operations, entries }, lasting };
}

const HELP_REGISTERED = 'let the program unregister it, or keep a descriptor of it open';

function refusalOfWorkers(process: Process, tid: number): Refusal {
  const reason = `those of thread ${tid} are kept to some of the CPUs that its cpuset has (io_uring_register_iowq_aff(3))`;
  const help = 'let the program give that up (io_uring_unregister_iowq_aff(3))';
  return { task: nameOf(process), object: 'workers of io_uring', reason, help };
}

function refusalOfNumbers(process: Process, reason: string): Refusal {
  const help = 'let the program unregister them (io_uring_unregister_ring_fd(3))';
  return { task: nameOf(process), object: 'registered ring descriptors', reason, help };
}

interface Found {
  readonly descriptor: Descriptor;
  readonly id: number;
}

function numbersOf(process: Process, open: OpenFiles<Found>, context: DumpContext) {
  const numbers = ringNumbers(process, open);
  if (typeof numbers !== 'string')
    return numbers.map(({ file, number }) => ({ file, pid: process.insidePid, number }));
  context.refuse(refusalOfNumbers(process, numbers));
  throw new Error(numbers);
}

/** What rings are completed by, and those that cannot be. */
interface Tree {
  readonly open: OpenFiles<Found>;
  readonly numbers: readonly { readonly file: bigint; readonly pid: number; readonly number: number }[];
  readonly busy: Busy[];
}

function completed(
  { descriptor, saved, inFlight: before }: Pending,
  { open, numbers, busy }: Tree,
  context: DumpContext,
): SavedRing {
  using taken = takeIfOpen(descriptor.process.pid, descriptor.fd, objectOf(descriptor));
  if (taken === undefined) throw new Error(`${objectOf(descriptor)} is gone, of a process that stands still`);
  const ring = readRing(taken.fd);
  const owners = ownersOf(ring, open);
  if ('problem' in owners) return refuseNow(context, descriptor, owners.problem, HELP_REGISTERED);
  const idOf = (address: bigint) => open.at(address)?.id ?? 0;
  const { eventfd } = ring;
  const { requests, issuer, thread, problems } = ifReadable(() => inFlightOf(ring, open));
  const made = {
    ...saved,
    ...owners,
    files: ring.files.map(idOf),
    buffers: ring.buffers.map(({ address, length }) => ({ address, length })),
    numbers: numbers.filter(({ file }) => file === ring.file).map(({ pid, number }) => ({ pid, number })),
    ...(eventfd === undefined ? {} : { eventfd: { file: idOf(eventfd.context), isAsync: eventfd.isAsync } }),
    ...(issuer === undefined ? {} : { issuer }),
    requests,
  };
  const excess = thread === undefined ? undefined : submissionProblem(made, thread.isLeader);
  const all = excess === undefined ? problems : [...problems, { problem: excess, passes: true }];
  const isMoving = ring.sqHead !== saved.sqHead || ring.cqTail !== saved.cqTail || ring.inFlight !== before;
  if (isMoving) busy.push([descriptor, MOVING]);
  else if (all.length > 0) busy.push([descriptor, reasonOf(all)]);
  return made;
}

/** What is on its way may end while it is looked at, also in a tree that stands still. */
function ifReadable(read: () => InFlight): InFlight {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof KernelMemoryError)) throw error;
    const problem = `operations are on their way that cannot be seen (${error.message})`;
    return { requests: [], problems: [{ problem, passes: true }] };
  }
}

/* ---------- restore ---------- */

function ringOf({ id }: file_entry, { reader }: Holder): SavedRing {
  const ring = readRings(reader).get(id);
  if (ring === undefined) throw new ImageError(URING_FILE, `has no ring ${id}`);
  return ring;
}

/** A file of ours with a ring's memory, to be given to the holder. */
function contentsFile(ring: SavedRing): number {
  using file = new OwnedFd(syscall('memfd_create', [scratchString('io_uring'), MFD_CLOEXEC]));
  writeAll(file.fd, stagedContents(ring));
  return file.release();
}
