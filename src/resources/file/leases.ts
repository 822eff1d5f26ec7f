import { ERRNO } from '../../abi/errno.js';
import {
  F_RDLCK,
  F_SETLEASE,
  F_SETOWN,
  F_UNLCK,
  F_WRLCK,
  O_ACCMODE,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDONLY,
  O_WRONLY,
} from '../../abi/fcntl.js';
import { type file_entry, type file_lock_entry, ImageError, type ImageReader } from '../../image/index.js';
import type { FileLock } from '../../kernel/procfs/locks.js';
import { readMaps } from '../../kernel/procfs/maps.js';
import type { Descriptor, Holder, Refuse, Tape } from '../contract.js';
import { deviceNumbers } from '../description/calls.js';
import { refusalOf } from '../description/described.js';
import { setOwner } from '../description/owner.js';
import { perRestore } from '../description/state.js';

/**
 * Leases: fcntl(2) F_SETLEASE. A read lease can be had while nobody has the file open for writing, a write lease
 * while nobody else has it open at all (fs/locks.c check_conflicting_open). Somebody's open begins to break one: its
 * owner is told by a signal and has 45 seconds (/proc/sys/fs/lease-break-time) to give it up. fdinfo then shows what it
 * is to become, not what it was.
 */

/** In `type` of file_lock_entry: the lease is being broken, and its type is the one it is to become. */
export const LEASE_BREAKING = 4;

/** A mapping at restore is of a description of its own, in the way of a write lease. */
export function checkLease(descriptor: Descriptor, lock: FileLock, refuse: Refuse): void {
  const { flags } = descriptor.info.info;
  const access = flags & O_ACCMODE;
  const isWrite = lock.type === 'WRITE' || (lock.mode === 'BREAKING' && access !== O_RDONLY);
  if (!isWrite) return;
  const { process, info } = descriptor;
  const { major, minor } = deviceNumbers(info.stat.dev);
  const isMapped = readMaps(process.pid).some(
    (map) => map.inode === info.stat.ino && map.major === major && map.minor === minor,
  );
  if (isMapped)
    refuse(
      refusalOf(descriptor, 'it holds a write lease, and the file is mapped too: both cannot be had at once'),
    );
  const isSparse = info.stat.blocks * 512n < info.stat.size;
  if (info.stat.nlink === 0n && (access === O_WRONLY || isSparse))
    refuse(
      refusalOf(
        descriptor,
        'it holds a write lease on a deleted file that is sparse, or that it cannot read: copying it would break the lease',
      ),
    );
}

/* ---------- restore ---------- */

/** On the tape of a process that has the description. One that is being broken is whole again, for the moment. */
export function restoreLease(entry: file_lock_entry, reader: ImageReader, tape: Tape): void {
  const { reg } = fileOf(entry, reader);
  const isBreaking = (entry.type & LEASE_BREAKING) !== 0;
  const type = isBreaking ? typeBefore(entry.type, reg?.flags ?? O_RDONLY) : entry.type;
  tape.call('fcntl', [entry.fd, F_SETLEASE, type]);
  // Who takes a lease becomes the owner of a description that has none (fs/locks.c lease_setup).
  if (isBreaking || reg?.fown?.pid === 0) tape.call('fcntl', [entry.fd, F_SETOWN, 0]);
}

/** What it was before: only a write lease becomes a read lease, and who cannot write seldom has one. */
function typeBefore(type: number, flags: number): number {
  if ((type & ~LEASE_BREAKING) === F_RDLCK) return F_WRLCK;
  return (flags & O_ACCMODE) === O_RDONLY ? F_RDLCK : F_WRLCK;
}

/** Files with leases that are being broken, by their ids, with what they are to become. */
const breaking = perRestore(({ reader }) => {
  const types = new Map<number, number>();
  for (const entry of reader.readOptional('filelocks') ?? [])
    if (entry.flag === LEASE && (entry.type & LEASE_BREAKING) !== 0)
      types.set(fileOf(entry, reader).id, entry.type & ~LEASE_BREAKING);
  return types;
});

/**
 * On the holder's last tape, when all leases were taken: a file whose leases are being broken gives no others. The
 * description has no owner meanwhile, who would be told once more.
 */
export function breakLease({ id, reg }: file_entry, holder: Holder): void {
  const type = breaking(holder).get(id);
  if (type === undefined) return;
  const { last } = holder;
  const slot = holder.slot(`file:${id}`);
  last.about(`lease of file ${id}, which is being broken`);
  const access = type === F_UNLCK ? O_WRONLY : O_RDONLY;
  const path = last.string(`/proc/self/fd/${slot}`);
  last.call('open', [path, access | O_NONBLOCK | O_CLOEXEC, 0], -ERRNO.EAGAIN);
  if (reg?.fown !== undefined) setOwner(slot, reg.fown, last);
}

const LEASE = 8;

/** The entry of files.img behind a lock's descriptor. */
function fileOf({ pid, fd }: file_lock_entry, reader: ImageReader): file_entry {
  const table = reader.readOptional('ids', pid)?.[0]?.filesId;
  const found =
    table === undefined ? undefined : reader.readOptional('fdinfo', table)?.find((each) => each.fd === fd);
  const file = found === undefined ? undefined : reader.read('files').find(({ id }) => id === found.id);
  if (file === undefined)
    throw new ImageError('filelocks.img', `pid ${pid} has no descriptor ${fd}, whose lease it is to take`);
  return file;
}
