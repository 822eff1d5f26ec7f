import { statSync } from 'node:fs';
import { MAP_SHARED, PROT_READ } from '../../abi/mman.js';
import { AF_PACKET } from '../../abi/socket.js';
import { unlessVanished } from '../../kernel/procfs/error.js';
import { mapFilePath } from '../../kernel/procfs/maps.js';
import { attempt } from '../../kernel/procfs/read.js';
import type { DetailedMapping } from '../../kernel/procfs/smaps.js';
import { attempt as syscallAttempt } from '../../kernel/syscall.js';
import { USER_END } from '../../tape/gap.js';
import { nameOf, type Process, type Refuse } from '../contract.js';
import { takeIfOpen } from '../description/calls.js';
import { identify } from '../description/identify.js';
import { descriptorsOf } from '../description/open.js';
import { treeOf } from '../description/tree.js';
import { noteRings } from './aio.js';
import { readVmas } from './mappings.js';
import { readSegments } from './sysv.js';
import { nameOfMapping, VMA, type Vma } from './vma.js';

/** What of a process's memory cannot be saved. Runs before anything is frozen, so mappings may come and go. */

interface Reason {
  readonly reason: string;
  readonly help?: string;
}

const FLAG_REASONS: Readonly<Record<string, Reason>> = {
  um: { reason: 'it is registered with a userfaultfd', help: 'let its fault handler unregister it' },
  uw: { reason: 'it is write-protected by a userfaultfd', help: 'let its fault handler unregister it' },
  ui: { reason: 'it is registered with a userfaultfd', help: 'let its fault handler unregister it' },
  ss: { reason: 'it is a shadow stack', help: 'start the program without shadow stacks' },
};

const NAMED: Readonly<Record<string, Reason>> = {
  '[uprobes]': { reason: 'uprobes are active in it', help: 'stop tracing the process' },
  '/secretmem': { reason: 'memory of memfd_secret(2) cannot be read by anybody else' },
  '[mpx]': { reason: 'it is a table of MPX bounds' },
};

export function checkMemory(process: Process, refuse: Refuse): void {
  const vmas = unlessVanished(() => readVmas(process.pid)) ?? [];
  noteRings(process.pid, vmas);
  const files = new Set<string>();
  const sockets = vmas.some(({ backing }) => backing === 'socket') ? packetSockets(process) : undefined;
  for (const vma of vmas) {
    const found =
      reasonFor(vma) ??
      fileReason(process.pid, vma, files) ??
      socketReason(vma, sockets ?? new Set()) ??
      ringReason(process, vma);
    if (found === undefined) continue;
    refuse({ task: nameOf(process), object: nameOfMapping(vma.mapping), ...found });
  }
  checkSegments(process, vmas, refuse);
}

function reasonFor({ mapping, status, backing, prot }: Vma): Reason | undefined {
  const { vmFlags, path, start, protectionKey } = mapping;
  if (backing === 'kernel') return undefined;
  const named = NAMED[path];
  if (named !== undefined) return named;
  for (const flag of vmFlags) {
    const reason = FLAG_REASONS[flag];
    if (reason !== undefined) return reason;
  }
  if (vmFlags.includes('pf') || (vmFlags.includes('io') && (status & VMA.FILE_SHARED) === 0))
    return { reason: 'it is memory of a device' };
  // The kernel itself gives mappings that may only be executed a key.
  const PROT_EXEC_ONLY = 4;
  if (protectionKey !== undefined && protectionKey !== 0 && prot !== PROT_EXEC_ONLY)
    return {
      reason: `it has protection key ${protectionKey}`,
      help: 'protection keys are not supported yet',
    };
  if (start >= USER_END) return { reason: 'it lies above 2^47 (five-level page tables)' };
  return undefined;
}

/** Files that live in a file system, and /dev/zero, can be mapped again; devices and anonymous inodes cannot. */
function fileReason(pid: number, { mapping, backing }: Vma, known: Set<string>): Reason | undefined {
  if (backing !== 'file') return undefined;
  const { major, minor, inode, path } = mapping;
  const key = `${major}:${minor}:${inode}:${path}`;
  if (known.has(key)) return undefined;
  known.add(key);
  const stat = unlessVanished(() => statOf(pid, mapping));
  if (stat === undefined || stat.isFile()) return undefined;
  if (stat.isCharacterDevice() && stat.rdev === DEV_ZERO) return undefined;
  if (stat.isCharacterDevice() || stat.isBlockDevice())
    return { reason: `it is of device ${stat.rdev >> 8n}:${stat.rdev & 0xffn}`, help: 'close the device' };
  return { reason: 'what is mapped is no file' };
}

/** Links of the packet sockets that a process has descriptors of. */
function packetSockets(process: Process): Set<string> {
  const found = descriptorsOf(process).filter((descriptor) => identify(descriptor)?.family === AF_PACKET);
  return new Set(found.map(({ info }) => info.link));
}

/** Sockets of TCP (TCP_ZEROCOPY_RECEIVE) and AF_XDP can be mapped too. */
function socketReason({ mapping, backing }: Vma, packetSockets: ReadonlySet<string>): Reason | undefined {
  if (backing !== 'socket' || packetSockets.has(mapping.path)) return undefined;
  return { reason: 'it is of a socket that is no packet socket, or that the process has closed' };
}

/**
 * Every ring has an inode of its own (Linux 5.12); a descriptor of it may be another process's of the tree. A ring can only
 * be mapped as a whole (io_uring/memmap.c), so a part that is left of one is refused.
 */
function ringReason(process: Process, { mapping, backing }: Vma): Reason | undefined {
  if (backing !== 'uring') return undefined;
  for (const member of treeOf(process)) {
    const open = descriptorsOf(member).find(
      ({ info: { link, stat } }) => link === mapping.path && stat.ino === mapping.inode,
    );
    using taken = open === undefined ? undefined : takeIfOpen(member.pid, open.fd, mapping.path);
    if (taken === undefined) continue;
    return canMap(taken.fd, mapping) ? undefined : { reason: 'it is only a part of an io_uring' };
  }
  return { reason: 'it is of an io_uring that nobody of the tree has a descriptor of' };
}

function canMap(fd: number, { start, end, offset }: DetailedMapping): boolean {
  const length = Number(end - start);
  const address = syscallAttempt('mmap', [0, length, PROT_READ, MAP_SHARED, fd, offset]);
  if (address < 0) return false;
  syscallAttempt('munmap', [address, length]);
  return true;
}

const DEV_ZERO = 0x105n;

function statOf(pid: number, mapping: DetailedMapping) {
  const path = mapFilePath(pid, mapping);
  return attempt(path, 'cannot stat', () => statSync(path, { bigint: true }));
}

function checkSegments(process: Process, vmas: readonly Vma[], refuse: Refuse): void {
  const attached = vmas.filter(({ backing }) => backing === 'sysv');
  if (attached.length === 0) return;
  const known = new Set(readSegments().map(({ shmid }) => BigInt(shmid)));
  for (const { mapping } of attached) {
    if (known.has(mapping.inode)) continue;
    refuse({
      task: nameOf(process),
      object: nameOfMapping(mapping),
      reason: `System V segment ${mapping.inode} is not one of this IPC namespace`,
    });
  }
}
