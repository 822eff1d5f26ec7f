import {
  AT_FDCWD,
  F_ADD_SEALS,
  F_DUPFD_CLOEXEC,
  F_SEAL_SEAL,
  F_SEAL_WRITE,
  O_CLOEXEC,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
} from '../../abi/fcntl.js';
import { IPC_CREAT, IPC_EXCL, IPC_RMID, IPC_SET, SHM_DEST } from '../../abi/ipc.js';
import * as M from '../../abi/mman.js';
import type { ImageReader } from '../../image/reader.js';
import type { memfd_inode_entry } from '../../image/schema/index.js';
import { encodeName } from '../../image/text.js';
import { HOLDER_ARENA, type Holder, type ProcessImage, type Result } from '../contract.js';
import { holdAddresses } from './address-file.js';
import {
  inodesOf,
  isAnonymous,
  isReadOnly,
  isSealedFirst,
  isSysv,
  keyOfFile,
  keyOfInode,
  keyOfMapped,
  keyOfReadOnly,
  otherAccess,
} from './image-memory.js';
import { eachRunOf, keyOfPages, type Run, readRunsTo, runsOf } from './runs.js';
import { pagesIdOf, segmentsOf } from './segments.js';
import { readSegments, type Segment } from './sysv.js';
import { PAGE, VMA } from './vma.js';

/** Shared memory is made and filled once, by the holder; whoever maps it takes a descriptor from there. */

/** Huge pages of 1 GiB are the largest that a mapping has to be aligned to. */
const ALIGNMENT = 1n << 30n;
const RW = M.PROT_READ | M.PROT_WRITE;

class Arena {
  next = HOLDER_ARENA;

  take(size: bigint): bigint {
    const at = this.next;
    this.next = (at + size + 2n * ALIGNMENT - 1n) & ~(ALIGNMENT - 1n);
    return at;
  }
}

export function holdMemory(images: readonly ProcessImage[], holder: Holder): void {
  const { reader } = holder;
  const arena = holder.state(holdMemory, () => new Arena());
  const inodes = inodesOf(reader).all;
  const shared = sharedSizes(images, inodes);
  const segments = segmentsOf(reader);
  holdAddresses(
    images.filter(({ mm }) => mm !== undefined).map(({ pid }) => pid),
    holder,
  );
  bringPages(images, holder, [
    ...inodes.map(({ shmid }) => BigInt(shmid)),
    ...shared.keys(),
    ...segments.map(({ shmid }) => pagesIdOf(shmid)),
  ]);
  for (const inode of inodes) holdInode(inode, holder, arena);
  for (const [shmid, { size, flags }] of shared) {
    holder.tape.about(`shared anonymous memory ${shmid}`);
    const fd = anonymous(holder, arena, shmid, size, flags);
    holder.hold(`shmem:${shmid}`, fd);
  }
  holdSegments(segments, holder, arena);
  holder.tape.about(undefined);
}

/** Descriptors of all pages files that anything of the image is in. */
function bringPages(images: readonly ProcessImage[], holder: Holder, shared: readonly bigint[]): void {
  const { reader, tape } = holder;
  const runs = [
    ...images.filter(({ mm }) => mm !== undefined).map((image) => eachRunOf(reader, image.pid)),
    ...shared.map((id) => eachRunOf(reader, id, { shmem: true })),
  ];
  const sources = new Map<string, Run>();
  for (const list of runs) {
    let last: Run | undefined;
    for (const run of list) {
      if (last?.reader === run.reader && last.pagesId === run.pagesId) continue;
      last = run;
      sources.set(keyOfPages(reader, run), run);
    }
  }
  for (const [key, run] of sources) {
    tape.about(key);
    holder.hold(key, holder.bring(run.reader.openPages(run.pagesId)));
  }
}

interface SharedSize {
  size: bigint;
  flags: number;
}

/** Shared anonymous memory as older images have it: by shmid alone, as large as it is mapped or has pages. */
function sharedSizes(
  images: readonly ProcessImage[],
  inodes: readonly memfd_inode_entry[],
): Map<bigint, SharedSize> {
  const sizes = new Map<bigint, SharedSize>();
  for (const { mm } of images) {
    for (const vma of mm?.vmas ?? []) {
      if ((vma.status & VMA.ANON_SHARED) === 0 || isSysv(vma)) continue;
      const size = vma.pgoff + vma.end - vma.start;
      const known = sizes.get(vma.shmid);
      if (known === undefined) sizes.set(vma.shmid, { size, flags: vma.flags });
      else if (known.size < size) known.size = size;
    }
  }
  for (const { shmid } of inodes) sizes.delete(BigInt(shmid));
  return sizes;
}

function holdInode(inode: memfd_inode_entry, holder: Holder, arena: Arena): void {
  const { tape } = holder;
  tape.about(`memory ${inode.name}`);
  const huge = inode.hugetlbFlag & (M.MAP_HUGE_MASK << M.MAP_HUGE_SHIFT);
  const isHuge = (inode.hugetlbFlag & M.MFD_HUGETLB) !== 0;
  const fd = isAnonymous(inode)
    ? anonymous(holder, arena, BigInt(inode.shmid), inode.size, isHuge ? M.MAP_HUGETLB | huge : 0)
    : memfd(inode, holder, arena);
  if (inode.uid !== 0 || inode.gid !== 0) tape.call('fchown', [fd, inode.uid, inode.gid]);
  if (Object.hasOwn(inode, 'mode')) tape.call('fchmod', [fd, inode.mode & 0o7777]);
  if (isSealedFirst(inode)) tape.call('fcntl', [fd, F_ADD_SEALS, F_SEAL_WRITE]);
  // Images that say the same of it by shmid alone.
  if (isAnonymous(inode)) holder.hold(`shmem:${inode.shmid}`, tape.call('fcntl', [fd, F_DUPFD_CLOEXEC, 0]));
  holder.hold(keyOfInode(inode), fd);
  if (isReadOnly(inode)) holder.hold(keyOfReadOnly(inode), reopen(holder, keyOfInode(inode)));
}

function reopen(holder: Holder, key: string): Result {
  const path = holder.tape.string(`/proc/self/fd/${holder.slot(key)}`);
  return holder.tape.call('openat', [AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0]);
}

function memfd(inode: memfd_inode_entry, holder: Holder, arena: Arena): Result {
  const { tape } = holder;
  const sealing = inode.seals === F_SEAL_SEAL ? 0 : M.MFD_ALLOW_SEALING;
  const flags = M.MFD_CLOEXEC | sealing | inode.hugetlbFlag;
  const fd = tape.call('memfd_create', [tape.string(encodeName(inode.name)), flags >>> 0]);
  if (inode.size === 0n) return fd;
  tape.call('ftruncate', [fd, inode.size]);
  const runs = runsOf(holder.reader, inode.shmid, { shmem: true });
  if (runs.length === 0) return fd;
  const unit =
    (inode.hugetlbFlag & M.MFD_HUGETLB) === 0
      ? PAGE
      : 1n << BigInt((inode.hugetlbFlag >>> M.MAP_HUGE_SHIFT) & 63);
  const size = ((inode.size + unit - 1n) / unit) * unit;
  const at = arena.take(size);
  tape.call('mmap', [at, size, RW, M.MAP_SHARED | M.MAP_FIXED_NOREPLACE, fd, 0], at);
  fill(holder, runs, at);
  tape.call('munmap', [at, size]);
  return fd;
}

/** Only mmap(2) makes an inode that is called /dev/zero; map_files leads to it. */
function anonymous(holder: Holder, arena: Arena, shmid: bigint, size: bigint, flags: number): Result {
  const { tape } = holder;
  const huge = flags & (M.MAP_HUGETLB | (M.MAP_HUGE_MASK << M.MAP_HUGE_SHIFT));
  const at = arena.take(size);
  const how = M.MAP_SHARED | M.MAP_ANONYMOUS | M.MAP_NORESERVE | M.MAP_FIXED_NOREPLACE;
  tape.call('mmap', [at, size, RW, (how | huge) >>> 0, -1, 0], at);
  fill(holder, runsOf(holder.reader, shmid, { shmem: true }), at);
  const link = `/proc/self/map_files/${at.toString(16)}-${(at + size).toString(16)}`;
  const fd = tape.call('openat', [AT_FDCWD, tape.string(link), O_RDWR | O_CLOEXEC, 0]);
  tape.call('munmap', [at, size]);
  return fd;
}

function fill(holder: Holder, runs: readonly Run[], at: bigint): void {
  readRunsTo(holder.tape, runs, { pages: (run) => holder.slot(keyOfPages(holder.reader, run)) }, at);
}

/**
 * A segment may have outlived its processes: then it is attached as it is, for what others wrote since is not ours to
 * undo. One that is gone gets its old id by shm_next_id (CAP_CHECKPOINT_RESTORE).
 */
function holdSegments(segments: readonly Segment[], holder: Holder, arena: Arena): void {
  const present = segments.length === 0 ? [] : readSegments();
  for (const segment of segments) {
    const { shmid, key } = segment;
    const there = present.find((other) => other.shmid === shmid);
    if (there !== undefined && isSame(there, segment)) continue;
    const taken = there ?? (key === 0 ? undefined : present.find((other) => other.key === key));
    if (taken !== undefined)
      throw new Error(
        `System V segment ${shmid} (key 0x${(key >>> 0).toString(16)}) cannot be made: another one, ${taken.shmid}, has its id or key`,
      );
    makeSegment(segment, holder, arena);
  }
}

/** The one that was saved, as far as it shows: after a boot its small id may be a stranger's. */
function isSame(a: Segment, b: Segment): boolean {
  const permissions = (segment: Segment) => segment.mode & 0o777;
  const isOf = a.uid === b.uid && a.gid === b.gid && permissions(a) === permissions(b);
  return isOf && a.key === b.key && a.size === b.size;
}

const SHMID64_DS_SIZE = 112;

function makeSegment(segment: Segment, holder: Holder, arena: Arena): void {
  const { tape, reader } = holder;
  const { shmid, key, size, mode, uid, gid } = segment;
  tape.about(`System V segment ${shmid}`);
  const next = tape.call('openat', [AT_FDCWD, tape.string('/proc/sys/kernel/shm_next_id'), O_WRONLY, 0]);
  const text = Buffer.from(String(shmid));
  tape.call('write', [next, tape.space(text), text.length]);
  tape.call('close', [next]);
  tape.call('shmget', [key, size, IPC_CREAT | IPC_EXCL | (mode & 0o777)], shmid);
  // struct shmid64_ds begins with ipc64_perm: key, uid, gid, cuid, cgid, mode.
  const status = new Uint8Array(SHMID64_DS_SIZE);
  const view = new DataView(status.buffer);
  view.setUint32(4, uid, true);
  view.setUint32(8, gid, true);
  view.setUint32(20, mode & 0o777, true);
  tape.call('shmctl', [shmid, IPC_SET, tape.space(status)]);
  const runs = runsOf(reader, pagesIdOf(shmid), { shmem: true });
  if (runs.length === 0) return;
  const at = arena.take(BigInt(size));
  tape.call('shmat', [shmid, at, 0], at);
  fill(holder, runs, at);
  tape.call('shmdt', [at]);
}

/** See the contract. */
export function holdMapped(images: readonly ProcessImage[], holder: Holder): void {
  const { tape, reader } = holder;
  const done = new Set<string>();
  tape.about('files as they are mapped');
  for (const { mm } of images) {
    for (const vma of mm?.vmas ?? []) {
      if ((vma.status & (VMA.FILE_PRIVATE | VMA.FILE_SHARED)) === 0) continue;
      const access = otherAccess(reader, vma);
      const key = keyOfMapped(reader, vma);
      if (access === undefined || key !== keyOfFile(vma, access) || done.has(key)) continue;
      done.add(key);
      const path = tape.string(`/proc/self/fd/${holder.slot(keyOfFile(vma, undefined))}`);
      holder.hold(key, tape.call('openat', [AT_FDCWD, path, access | O_CLOEXEC, 0]));
    }
  }
  tape.about(undefined);
}

/** When all is mapped: what would have hindered that. */
export function sealMemory(_images: readonly ProcessImage[], holder: Holder): void {
  const { tape, reader } = holder;
  for (const inode of inodesOf(reader).all) {
    if (inode.seals === F_SEAL_SEAL || inode.seals === 0) continue;
    tape.about(`seals of memory ${inode.name}`);
    tape.call('fcntl', [holder.slot(keyOfInode(inode)), F_ADD_SEALS, inode.seals]);
  }
  removeSegments(reader, holder);
  tape.about(undefined);
}

function removeSegments(reader: ImageReader, { tape }: Holder): void {
  for (const { shmid, mode } of segmentsOf(reader)) {
    if ((mode & SHM_DEST) === 0) continue;
    tape.about(`System V segment ${shmid}, removed when last detached`);
    tape.call('shmctl', [shmid, IPC_RMID, 0]);
  }
}
