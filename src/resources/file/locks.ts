import {
  F_OFD_SETLK,
  F_RDLCK,
  F_SETLK,
  F_UNLCK,
  F_WRLCK,
  LOCK_EX,
  LOCK_NB,
  LOCK_SH,
} from '../../abi/fcntl.js';
import { KCMP_FILES } from '../../abi/process.js';
import { createMessage, type file_lock_entry, ImageError, type ImageReader } from '../../image/index.js';
import type { FileLock } from '../../kernel/procfs/locks.js';
import { attempt } from '../../kernel/syscall.js';
import type {
  Descriptor,
  DumpContext,
  DumpOptions,
  Process,
  Refuse,
  RestoreTask,
  Tape,
  TaskState,
} from '../contract.js';
import { refusalOf } from '../description/described.js';
import { writeMappedLocks } from '../description/mapped-locks.js';
import { perDump } from '../description/state.js';
import { checkLease, LEASE_BREAKING, restoreLease } from './leases.js';
import { explainLock } from './lock-conflicts.js';
import { findUnseenLocks } from './unseen-locks.js';

/**
 * Locks: flock(2), fcntl(2) F_SETLK (POSIX, the process's) and F_OFD_SETLK (the description's), and leases (leases.ts).
 *
 * fdinfo shows, for a descriptor, the locks that were taken through its description and belong to that description or
 * to the descriptor table it was looked at in (fs/locks.c show_fd_locks), so nothing has to be tried to tell whose a
 * lock is. Whoever waits for one (F_SETLKW) has no lock yet, and asks again by itself.
 */

/** `flag` of file_lock_entry. */
const LOCK_FLAG = { POSIX: 1, FLOCK: 2, OFD: 4, LEASE: 8 } as const;

const FLAGS: Partial<Record<FileLock['kind'], number>> = {
  POSIX: LOCK_FLAG.POSIX,
  FLOCK: LOCK_FLAG.FLOCK,
  OFDLCK: LOCK_FLAG.OFD,
  LEASE: LOCK_FLAG.LEASE,
};
const TYPES = { READ: F_RDLCK, WRITE: F_WRLCK, UNLCK: F_UNLCK } as const;

/** flock(2) LOCK_MAND, which no kernel since 5.18 has: share reservations of file servers. */
const LOCK_MAND = 32;

/** Can the locks of this descriptor be saved? */
export function checkLocks(descriptor: Descriptor, refuse: Refuse, options: DumpOptions): void {
  const { locks } = descriptor.info.info;
  if (locks.length === 0) return;
  if (!options.fileLocks) {
    refuse(refusalOf(descriptor, 'it holds file locks or leases', 'use --file-locks to save them'));
    return;
  }
  for (const lock of locks) {
    if (FLAGS[lock.kind] === undefined || lock.mode === 'MSNFS')
      refuse(refusalOf(descriptor, `it holds a lock of a kind that only file servers take (${lock.kind})`));
    else if (lock.kind === 'LEASE') checkLease(descriptor, lock, refuse);
  }
}

interface Gathered {
  entries: readonly file_lock_entry[];
  mapped: ReturnType<typeof findUnseenLocks>;
}

const gathered = perDump<Gathered>(() => ({ entries: [], mapped: new Map() }));

/** Frozen: every lock (`all`: those of the host, `locked`: the descriptors that show some) once, under a process and a descriptor through which it can be taken again. */
export function gatherLocks(
  all: readonly FileLock[],
  locked: DumpContext['files']['found'],
  context: DumpContext,
): void {
  const descriptors = locked.map(({ descriptor }) => descriptor);
  gathered(context).mapped = findUnseenLocks(
    context.processes,
    descriptors,
    all,
    context.refuse,
    context.options,
  );
  const entries = new Map<string, file_lock_entry>();
  const holders = holdersOf(locked);
  for (const { descriptor, id } of locked)
    for (const lock of descriptor.info.info.locks) {
      const { kind, type, start, end } = lock;
      const isOwned = kind === 'POSIX';
      const key = [isOwned ? descriptor.process.pid : '', id, kind, type, start, end].join();
      if (entries.has(key)) continue;
      const holder = isOwned
        ? { process: ownerOf(lock, descriptor, context), fd: descriptor.fd }
        : (holders.get(id)?.find(({ process }) => process.pid === lock.pid) ?? descriptor);
      entries.set(key, entryOf(lock, holder));
    }
  gathered(context).entries = [...entries.values()];
}

/** filelocks.img. */
export function writeLocks(context: DumpContext): void {
  const { entries, mapped } = gathered(context);
  writeMappedLocks(mapped, context.writer);
  if (entries.length > 0) context.writer.write('filelocks', null, entries);
}

function entryOf(lock: FileLock, { process, fd }: Pick<Descriptor, 'process' | 'fd'>): file_lock_entry {
  const { kind, type, mode, start, end } = lock;
  return createMessage('filelocks', {
    flag: FLAGS[kind] ?? 0,
    type: TYPES[type] | (mode === 'BREAKING' ? LEASE_BREAKING : 0),
    pid: process.insidePid,
    fd,
    start,
    len: end === undefined ? 0n : end + 1n - start,
  });
}

/** Descriptors with locks, by their description. */
function holdersOf(locked: DumpContext['files']['found']): Map<number, Descriptor[]> {
  const holders = new Map<number, Descriptor[]>();
  for (const { descriptor, id } of locked) {
    const known = holders.get(id);
    if (known === undefined) holders.set(id, [descriptor]);
    else known.push(descriptor);
  }
  return holders;
}

/** A descriptor table that several processes share owns the lock; F_GETLK names the one of them that took it. */
function ownerOf(lock: FileLock, { process }: Descriptor, context: DumpContext): Process {
  if (lock.pid === process.pid) return process;
  const taker = context.processes.find(({ pid }) => pid === lock.pid);
  const shares = taker !== undefined && attempt('kcmp', [process.pid, taker.pid, KCMP_FILES, 0, 0]) === 0;
  return shares ? taker : process;
}

/* ---------- restore ---------- */

/** Which entry of a tape takes which lock, to explain why it could not. */
const taken = new WeakMap<Tape, Map<number, file_lock_entry>>();

export const fileLocks: TaskState = {
  name: 'file locks',
  scope: 'process',
  support:
    'flock, POSIX, OFD and leases, also those being broken (the time to give them up begins anew); whoever holds a conflicting one at restore is named; also those of a description that only is mapped any more, by who took the lock; refused: where that does not show',

  restore(task, tape) {
    for (const entry of locksOf(task.reader).get(task.pid) ?? []) {
      const index = tape.entries.length;
      restoreLock(entry, task, tape);
      const known = taken.get(tape) ?? new Map<number, file_lock_entry>();
      for (let at = index; at < tape.entries.length; at++) known.set(at, entry);
      taken.set(tape, known);
    }
  },

  explain(_task, tape, index, tid) {
    const entry = taken.get(tape)?.get(index);
    return entry === undefined ? undefined : explainLock(entry, tid);
  },
};

function restoreLock(entry: file_lock_entry, task: RestoreTask, tape: Tape): void {
  const { flag, fd } = entry;
  switch (flag) {
    case LOCK_FLAG.FLOCK:
      tape.call('flock', [fd, (flockOperation(entry) | LOCK_NB) >>> 0]);
      return;
    case LOCK_FLAG.POSIX:
    case LOCK_FLAG.OFD:
      tape.call('fcntl', [fd, flag === LOCK_FLAG.POSIX ? F_SETLK : F_OFD_SETLK, tape.space(flockOf(entry))]);
      return;
    case LOCK_FLAG.LEASE:
      restoreLease(entry, task.reader, tape);
      return;
    default:
      throw new ImageError('filelocks.img', `a lock of pid ${entry.pid} is of an unknown kind (${flag})`);
  }
}

function flockOperation({ type, pid, fd }: file_lock_entry): number {
  if (type === F_RDLCK) return LOCK_SH;
  if (type === F_WRLCK) return LOCK_EX;
  const what =
    (type & LOCK_MAND) === 0 ? `of an unknown type (${type})` : 'mandatory, which Linux has no more';
  throw new ImageError('filelocks.img', `the lock of descriptor ${fd} of pid ${pid} is ${what}`);
}

/** struct flock: l_type, l_whence (SEEK_SET), l_start, l_len, l_pid. */
function flockOf({ type, start, len }: file_lock_entry): Uint8Array {
  const bytes = new Uint8Array(32);
  const view = new DataView(bytes.buffer);
  view.setInt16(0, type, true);
  view.setBigInt64(8, start, true);
  view.setBigInt64(16, len, true);
  return bytes;
}

const byReader = new WeakMap<ImageReader, ReadonlyMap<number, readonly file_lock_entry[]>>();

/** The locks of an image by the process that is to take them. */
function locksOf(reader: ImageReader): ReadonlyMap<number, readonly file_lock_entry[]> {
  const known = byReader.get(reader);
  if (known !== undefined) return known;
  const locks = new Map<number, file_lock_entry[]>();
  for (const entry of reader.readOptional('filelocks') ?? [])
    locks.set(entry.pid, [...(locks.get(entry.pid) ?? []), entry]);
  byReader.set(reader, locks);
  return locks;
}
