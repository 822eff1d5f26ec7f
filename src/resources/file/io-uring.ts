import { writeSync } from 'node:fs';
import { O_CLOEXEC } from '../../abi/fcntl.js';
import * as U from '../../abi/io-uring.js';
import { MFD_CLOEXEC } from '../../abi/mman.js';
import { CLOCK_MONOTONIC } from '../../abi/process.js';
import { createMessage, ImageError } from '../../image/index.js';
import { OwnedFd } from '../../kernel/fd.js';
import { scratchString } from '../../kernel/memory.js';
import { readDescriptors } from '../../kernel/procfs/descriptors.js';
import { unlessVanished } from '../../kernel/procfs/error.js';
import { syscall } from '../../kernel/syscall.js';
import {
  type Descriptor,
  type DumpContext,
  type FileKind,
  type file_entry,
  type Holder,
  nameOf,
  type Process,
  type Refuse,
} from '../contract.js';
import { takeIfOpen } from '../description/calls.js';
import { objectOf, refusalOf, refuseNow } from '../description/described.js';
import { dumpOwner, restoreOwner } from '../description/owner.js';
import { perDump } from '../description/state.js';
import { setStatusFlags } from '../description/status-flags.js';
import { treeOf } from '../description/tree.js';
import { FD_TYPE } from '../description/types.js';
import { encodeRings, readRings, type SavedRing, URING_FILE } from './io-uring-codec.js';
import { offsetsOf, readContents } from './io-uring-layout.js';
import { advance, makeRing, registerClock, writeContents } from './io-uring-rebuild.js';
import { COUNTER_MAX, kernelMemory, type Ring, readRing, registeredRings } from './io-uring-state.js';

/**
 * io_uring(7): two rings in shared memory, which the kernel and the program go round, and what is registered with them.
 * What the kernel keeps of one is read in its own memory (io-uring-state.ts). A ring is saved while none of its operations
 * is on its way, is made anew of the same shape, brought to where its counters were (io-uring-rebuild.ts), and gets its
 * memory back: completions that were not read, submissions that were not submitted. files.img names it as an external
 * file, which CRIU refuses without a plugin.
 */
interface Pending {
  readonly descriptor: Descriptor;
  readonly ring: Ring;
  readonly saved: Omit<SavedRing, 'files' | 'eventfd'>;
}

const pending = perDump<Pending[]>(() => []);
const complete = perDump<SavedRing[]>(() => []);

const HELP =
  'let the program close it, or start it with io_uring turned off (io_uring_disabled, UV_USE_IO_URING=0)';

export const ioUring: FileKind = {
  name: 'io_uring',
  support:
    'idle rings of all sizes with unread completions, unsubmitted entries, registered files and eventfd, and their mappings (from Linux 6.16, with BTF); operations on their way are waited for; refused: polled by the kernel (SQPOLL), IOPOLL, SINGLE_ISSUER, NO_MMAP, restrictions, registered or provided buffers, credentials, ring descriptors, more than 16 million operations',
  member: 'ext',

  recognise: ({ info }) => info.link === 'anon_inode:[io_uring]',

  restores: ({ id }, reader) => readRings(reader).has(id),

  check(descriptor, refuse) {
    using taken = takeIfOpen(descriptor.process.pid, descriptor.fd, objectOf(descriptor));
    if (taken === undefined) return;
    for (const problem of problemsOf(descriptor, taken.fd)) refuse(refusalOf(descriptor, problem, HELP));
  },

  checkAll(descriptors, refuse) {
    checkRegistered(descriptors, refuse);
  },

  dump(descriptor, id, taken, context) {
    const [problem] = problemsOf(descriptor, taken);
    if (problem !== undefined) refuseNow(context, descriptor, problem, HELP);
    const ring = readRing(taken);
    if (ring.inFlight !== 0 || ring.isPosting) retryBusy(descriptor, ring, context);
    const offsets = offsetsOf(ring);
    const { flags, sqEntries, cqEntries, sqHead, cqTail, clock, fileRange } = ring;
    const fileFlags = descriptor.info.info.flags & ~O_CLOEXEC;
    const words = { id, fileFlags, flags, sqEntries, cqEntries, offsets, sqHead, cqTail, clock, fileRange };
    const saved = { ...words, ...readContents(taken, ring, offsets) };
    pending(context).push({ descriptor, ring, saved });
    const ext = { id, fown: dumpOwner(descriptor, taken, context) };
    return createMessage('files', { type: FD_TYPE.ext, id, ext });
  },

  conclude(context) {
    const all = pending(context);
    const found = all.some(({ ring }) => hasRegistered(ring)) ? context.files.found : [];
    const files = addressesOf(found);
    for (const each of all) complete(context).push(completed(each, files, context));
  },

  write(context) {
    const rings = complete(context);
    if (rings.length > 0) context.writer.writeBytes(URING_FILE, [encodeRings(rings)]);
  },

  open(entry, holder) {
    const ring = ringOf(entry, holder);
    const { tape } = holder;
    const fd = makeRing(tape, ring);
    advance(tape, fd, ring);
    const contents = holder.bring(contentsFile(ring));
    writeContents(tape, fd, contents, ring);
    tape.call('close', [contents]);
    if (ring.clock !== CLOCK_MONOTONIC) registerClock(tape, fd, ring.clock);
    setStatusFlags(tape, fd, ring.fileFlags);
    restoreOwner(`file:${entry.id}`, entry.ext?.fown, holder);
    return fd;
  },

  connect(entry, holder) {
    if (!readRings(holder.reader).has(entry.id)) return;
    const { files, fileRange, eventfd } = ringOf(entry, holder);
    const { tape } = holder;
    const fd = holder.slot(`file:${entry.id}`);
    if (files.length > 0) {
      const slots = new Int32Array(files.map((file) => (file === 0 ? -1 : holder.slot(`file:${file}`))));
      const space = tape.space(new Uint8Array(slots.buffer));
      tape.call('io_uring_register', [fd, U.IORING_REGISTER_FILES, space, files.length]);
      const range = new Uint8Array(16);
      const view = new DataView(range.buffer);
      view.setUint32(0, fileRange.start, true);
      view.setUint32(4, fileRange.end - fileRange.start, true);
      if (fileRange.start !== 0 || fileRange.end !== files.length)
        tape.call('io_uring_register', [fd, U.IORING_REGISTER_FILE_ALLOC_RANGE, tape.space(range), 0]);
    }
    if (eventfd === undefined) return;
    const space = tape.space(new Uint8Array(new Int32Array([holder.slot(`file:${eventfd.file}`)]).buffer));
    const how = eventfd.isAsync ? U.IORING_REGISTER_EVENTFD_ASYNC : U.IORING_REGISTER_EVENTFD;
    tape.call('io_uring_register', [fd, how, space, 1]);
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

function retryBusy(descriptor: Descriptor, ring: Ring, context: DumpContext): never {
  const reason =
    ring.inFlight === 0
      ? 'completions of it wait for room in its ring'
      : `${ring.inFlight} of its operations are on their way (reads that wait, timeouts, polls)`;
  return context.retry(
    refusalOf(descriptor, reason, 'let the program cancel them, or wait until they are done'),
  );
}

function hasRegistered({ files, eventfd }: Ring): boolean {
  return eventfd !== undefined || files.some((file) => file !== 0n);
}

/* ---------- what is registered, as files of the tree ---------- */

interface Found {
  readonly id: number;
}

/** Files of the tree by their addresses in the kernel, and the counters of eventfds, which rings have instead. */
function addressesOf<T extends { readonly descriptor: Descriptor }>(all: readonly T[]): Map<bigint, T> {
  const memory = kernelMemory();
  const tables = new Map<number, BigUint64Array>();
  const byAddress = new Map<bigint, T>();
  for (const each of all) {
    const { process, fd, info } = each.descriptor;
    const table = tables.get(process.pid) ?? memory.files(memory.task(process.pid));
    tables.set(process.pid, table);
    const file = table[fd] ?? 0n;
    if (file === 0n) continue;
    byAddress.set(file, each);
    if (info.link === 'anon_inode:[eventfd]')
      byAddress.set(memory.pointer(memory.member(file, 'file', 'private_data')), each);
  }
  return byAddress;
}

/** Before the freeze: what is registered with rings has to be open in the tree, and rings with no task. */
function checkRegistered(descriptors: readonly Descriptor[], refuse: Refuse): void {
  const processes = descriptors[0] === undefined ? [] : treeOf(descriptors[0].process);
  try {
    for (const process of processes) checkRingDescriptors(process, refuse);
    const rings = descriptors.flatMap((descriptor) => {
      using taken = takeIfOpen(descriptor.process.pid, descriptor.fd, objectOf(descriptor));
      const ring = taken === undefined ? undefined : readRing(taken.fd);
      return ring === undefined || !hasRegistered(ring) ? [] : [{ descriptor, ring }];
    });
    if (rings.length === 0) return;
    const open = processes.flatMap((process) =>
      (unlessVanished(() => readDescriptors(process.pid)) ?? []).map((info) => ({
        descriptor: { process, fd: info.fd, info },
      })),
    );
    const byAddress = addressesOf(open);
    for (const { descriptor, ring } of rings) {
      const strange = strangerOf(ring, byAddress);
      if (strange !== undefined) refuse(refusalOf(descriptor, strange, HELP_REGISTERED));
    }
  } catch {
    // It ended meanwhile, or cannot be looked at, which the check of each ring has said.
  }
}

const HELP_REGISTERED = 'let the program unregister it, or keep a descriptor of it open';

function strangerOf({ files, eventfd }: Ring, byAddress: ReadonlyMap<bigint, unknown>): string | undefined {
  const index = files.findIndex((file) => file !== 0n && !byAddress.has(file));
  if (index >= 0) return `registered file ${index} is open in no process of the tree`;
  if (eventfd !== undefined && !byAddress.has(eventfd.context))
    return 'the eventfd that is registered with it is open in no process of the tree';
  return undefined;
}

/** io_uring_enter(2) with IORING_ENTER_REGISTERED_RING finds rings by numbers that belong to a thread. */
function checkRingDescriptors(process: Process, refuse: Refuse): void {
  for (const thread of process.threads) {
    const count = registeredRings(thread.tid);
    if (count === 0) continue;
    refuse({
      task: nameOf(thread),
      object: `${count} registered ring descriptor${count === 1 ? '' : 's'}`,
      reason: 'which rings a thread knows by numbers of its own cannot be given back yet',
      help: 'let the program not register them (io_uring_register_ring_fd(3))',
    });
  }
}

function completed(
  { descriptor, ring, saved }: Pending,
  files: ReadonlyMap<bigint, Found>,
  context: DumpContext,
): SavedRing {
  const strange = strangerOf(ring, files);
  if (strange !== undefined) refuseNow(context, descriptor, strange, HELP_REGISTERED);
  const idOf = (address: bigint) => files.get(address)?.id ?? 0;
  const { eventfd } = ring;
  return {
    ...saved,
    files: ring.files.map(idOf),
    ...(eventfd === undefined ? {} : { eventfd: { file: idOf(eventfd.context), isAsync: eventfd.isAsync } }),
  };
}

/* ---------- restore ---------- */

function ringOf({ id }: file_entry, { reader }: Holder): SavedRing {
  const ring = readRings(reader).get(id);
  if (ring === undefined) throw new ImageError(URING_FILE, `has no ring ${id}`);
  return ring;
}

/** A file of ours with a ring's memory, to be given to the holder. */
function contentsFile({ rings, sqes }: SavedRing): number {
  using file = new OwnedFd(syscall('memfd_create', [scratchString('io_uring'), MFD_CLOEXEC]));
  writeAll(file.fd, Buffer.concat([rings, sqes]));
  return file.release();
}

function writeAll(fd: number, bytes: Buffer): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
}
