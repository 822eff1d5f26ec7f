import { type BigIntStats, statSync } from 'node:fs';
import { F_RDLCK, F_UNLCK, F_WRLCK } from '../../abi/fcntl.js';
import { KCMP_FILE } from '../../abi/process.js';
import type { file_lock_entry } from '../../image/index.js';
import { readComm } from '../../kernel/procfs/cmdline.js';
import { allDescriptors, isOpenOn } from '../../kernel/procfs/descriptors.js';
import { unlessVanished } from '../../kernel/procfs/error.js';
import { readFdinfo } from '../../kernel/procfs/fdinfo.js';
import { type FileLock, readLocks } from '../../kernel/procfs/locks.js';
import { readLink } from '../../kernel/procfs/read.js';
import { attempt } from '../../kernel/syscall.js';
import { deviceNumbers } from '../description/calls.js';

/**
 * Why a lock of the image could not be taken: who holds what on the file, as /proc/locks says and, for locks that
 * belong to a description, the descriptors of all processes this one may look at.
 */
export function explainLock(entry: file_lock_entry, tid: number): string | undefined {
  const path = `/proc/${tid}/fd/${entry.fd}`;
  const found = unlessVanished(() => ({ stat: statSync(path, { bigint: true }), link: readLink(path) }));
  if (found === undefined) return undefined;
  const { stat, link } = found;
  const locks = readLocks().filter((lock) => lock.waiting === 0 && isOf(lock, stat));
  const held = locks.filter(
    (lock) => isInTheWay(lock, entry) && !(lock.kind === 'POSIX' && lock.pid === tid),
  );
  const others = openersOf(stat, { tid, fd: entry.fd });
  const who = entry.flag === LEASE ? others.map(({ name }) => `${name} has it open`) : describe(held, others);
  const what = `${kindOf(entry)} of ${link} (descriptor ${entry.fd})`;
  if (who.length === 0) return `${what} cannot be taken, and nobody is seen who holds one`;
  return `${what} cannot be taken: ${who.join(', ')}; end that process, or let it unlock the file`;
}

const FLOCK = 2;
const LEASE = 8;
const KINDS: Readonly<Record<number, string>> = { 1: 'POSIX', 2: 'flock', 4: 'OFD' };

function kindOf({ flag, type, start, len }: file_lock_entry): string {
  const access = { [F_RDLCK]: 'read', [F_WRLCK]: 'write', [F_UNLCK]: 'broken' }[type & 3] ?? 'unknown';
  if (flag === LEASE) return `the ${access} lease`;
  const range =
    start === 0n && len === 0n ? 'all' : `bytes ${start} to ${len === 0n ? 'the end' : start + len - 1n}`;
  return `the ${access} lock (${KINDS[flag] ?? flag}) on ${range}`;
}

/** flock(2) and fcntl(2) know nothing of each other's locks. */
function isInTheWay({ kind, type, start, end }: FileLock, entry: file_lock_entry): boolean {
  const isFlock = kind === 'FLOCK';
  if (kind === 'LEASE' || isFlock !== (entry.flag === FLOCK)) return false;
  if (type === 'READ' && entry.type === F_RDLCK) return false;
  const isBefore = end !== undefined && end < entry.start;
  const isBehind = entry.len !== 0n && start >= entry.start + entry.len;
  return isFlock || (!isBefore && !isBehind);
}

function isOf({ major, minor, inode }: FileLock, { dev, ino }: BigIntStats): boolean {
  const device = deviceNumbers(dev);
  return inode === ino && device.major === major && device.minor === minor;
}

interface Opener {
  readonly pid: number;
  readonly name: string;
  readonly locks: readonly FileLock[];
}

/** "pid 12 (name) holds a write lock on all of it" */
function describe(held: readonly FileLock[], others: readonly Opener[]): string[] {
  return held.map((lock) => {
    const owners = others.filter(({ locks }) => locks.some((other) => isSame(other, lock)));
    const end = lock.end === undefined ? 'the end' : String(lock.end);
    const what = `a ${lock.type.toLowerCase()} lock (${lock.kind}) on bytes ${lock.start} to ${end}`;
    const names = owners.map(({ name }) => name);
    return `${names.length > 0 ? names.join(' and ') : nameless(lock.pid)} holds ${what}`;
  });
}

function nameless(pid: number): string {
  return pid > 0 ? nameOfPid(pid) : 'a process that cannot be seen from here';
}

function isSame(a: FileLock, b: FileLock): boolean {
  return a.kind === b.kind && a.type === b.type && a.pid === b.pid && a.start === b.start && a.end === b.end;
}

function nameOfPid(pid: number): string {
  return `pid ${pid} (${unlessVanished(() => readComm(pid)) ?? 'which has ended'})`;
}

/** Processes that have a file open; with `not`, those that have it by another description than that descriptor's. */
export function openersOf(stat: BigIntStats, not?: { readonly tid: number; readonly fd: number }): Opener[] {
  const openers: Opener[] = [];
  const known = new Set([process.pid, ...(not === undefined ? [] : [not.tid])]);
  for (const [pid, fds] of allDescriptors(known)) {
    const isOwn = (fd: number) =>
      not !== undefined && attempt('kcmp', [not.tid, pid, KCMP_FILE, not.fd, fd]) === 0;
    const through = fds.filter((fd) => isOpenOn(pid, fd, stat) && !isOwn(fd));
    if (through.length === 0) continue;
    const locks = through.flatMap((fd) => unlessVanished(() => readFdinfo(pid, fd).locks) ?? []);
    openers.push({ pid, name: nameOfPid(pid), locks });
  }
  return openers;
}
