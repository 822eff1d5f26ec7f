import * as M from '../../abi/mman.js';
import type { DetailedMapping } from '../../kernel/procfs/smaps.js';

/**
 * What a line of smaps is, in the words of CRIU's vma_entry. What the kernel keeps of a mapping and shows: range,
 * protection, sharing, file offset, and VmFlags (fs/proc/task_mmu.c show_smap_vma_flags()).
 */

/** vma_entry.status. */
export const VMA = {
  REGULAR: 1,
  VSYSCALL: 4,
  VDSO: 8,
  HEAP: 0x20,
  FILE_PRIVATE: 0x40,
  FILE_SHARED: 0x80,
  ANON_SHARED: 0x100,
  ANON_PRIVATE: 0x200,
  SYSVIPC: 0x400,
  SOCKET: 0x800,
  VVAR: 0x1000,
  AIORING: 0x2000,
  MEMFD: 0x4000,
  SHSTK: 0x8000,
  GUARD: 0x10000,
  /** CRIU leaves it to a plugin, and refuses it without one. */
  PLUGIN: 0x800_0000,
} as const;

export const PAGE = BigInt(M.PAGE_SIZE);

/** What memory behind a mapping is. */
export type Backing =
  /** Private and without a file; pages of its own are in the image. */
  | 'anonymous'
  /** A file that lasts by itself; private changes of its pages are in the image. */
  | 'file'
  /** A memfd, or shared anonymous memory, whose contents are in the image once. */
  | 'memfd'
  /** A System V segment. */
  | 'sysv'
  /** The ring of an asynchronous I/O context. */
  | 'ring'
  /** The rings of a packet socket, which are made with it. */
  | 'socket'
  /** An io_uring, which is made with its descriptor. */
  | 'uring'
  /** The kernel's: vDSO, its data, vsyscall. */
  | 'kernel';

export interface Vma {
  readonly mapping: DetailedMapping;
  readonly backing: Backing;
  readonly status: number;
  readonly prot: number;
  /** MAP_* */
  readonly flags: number;
  /** Bit n: MADV_n is in effect. */
  readonly madv: bigint;
}

const MAP_FLAGS: Readonly<Record<string, number>> = {
  gd: M.MAP_GROWSDOWN,
  lo: M.MAP_LOCKED,
  nr: M.MAP_NORESERVE,
  ht: M.MAP_HUGETLB,
  dp: M.MAP_DROPPABLE,
};

const ADVICE: Readonly<Record<string, number>> = {
  sr: M.MADV_SEQUENTIAL,
  rr: M.MADV_RANDOM,
  dc: M.MADV_DONTFORK,
  dd: M.MADV_DONTDUMP,
  mg: M.MADV_MERGEABLE,
  hg: M.MADV_HUGEPAGE,
  nh: M.MADV_NOHUGEPAGE,
  wf: M.MADV_WIPEONFORK,
};

function protOf(perms: string): number {
  return (
    (perms[0] === 'r' ? M.PROT_READ : 0) |
    (perms[1] === 'w' ? M.PROT_WRITE : 0) |
    (perms[2] === 'x' ? M.PROT_EXEC : 0)
  );
}

/** MAP_* of a line; the kernel's MAP_DROPPABLE stands in for MAP_PRIVATE. */
function flagsOf({ perms, vmFlags, kernelPageSize }: DetailedMapping): number {
  let flags = perms[3] === 's' ? M.MAP_SHARED : M.MAP_PRIVATE;
  for (const name of vmFlags) flags |= MAP_FLAGS[name] ?? 0;
  if ((flags & M.MAP_DROPPABLE) !== 0) flags &= ~M.MAP_PRIVATE;
  if ((flags & M.MAP_HUGETLB) !== 0) flags |= Math.log2(kernelPageSize) << M.MAP_HUGE_SHIFT;
  return flags;
}

function adviceOf({ vmFlags }: DetailedMapping): bigint {
  let bits = 0n;
  for (const name of vmFlags) {
    const advice = ADVICE[name];
    if (advice !== undefined) bits |= 1n << BigInt(advice);
  }
  return bits;
}

const KERNEL: Readonly<Record<string, number>> = {
  '[vsyscall]': VMA.VSYSCALL,
  '[vdso]': VMA.REGULAR | VMA.VDSO,
  '[vvar]': VMA.REGULAR | VMA.VVAR,
  '[vvar_vclock]': VMA.REGULAR | VMA.VVAR,
};

function backingOf(mapping: DetailedMapping, shmemDevice: string): Backing {
  const { path, inode, major, minor, perms, vmFlags } = mapping;
  if (KERNEL[path] !== undefined && inode === 0n) return 'kernel';
  if (path === '/[aio]' && perms[3] === 's') return 'ring';
  if (path.startsWith('socket:[')) return 'socket';
  if (path === 'anon_inode:[io_uring]') return 'uring';
  if (inode === 0n && !path.startsWith('/') && !path.includes(':[')) return 'anonymous';
  const huge = vmFlags.includes('ht');
  if (huge || `${major}:${minor}` === shmemDevice) {
    if (path.startsWith('/SYSV') && mapping.deleted) return 'sysv';
    if (huge && path === '/anon_hugepage' && perms[3] === 'p') return 'anonymous';
    // A name that prctl(PR_SET_VMA_ANON_NAME) gave stands in the place of `/dev/zero (deleted)`.
    if (mapping.deleted || path.startsWith('[anon_shmem:')) return 'memfd';
  }
  return 'file';
}

function statusOf(backing: Backing, { path, perms }: DetailedMapping): number {
  const shared = perms[3] === 's';
  switch (backing) {
    case 'kernel':
      return VMA.ANON_PRIVATE | (KERNEL[path] ?? 0);
    case 'anonymous':
      return VMA.ANON_PRIVATE | VMA.REGULAR | (path === '[heap]' ? VMA.HEAP : 0);
    case 'file':
      return VMA.REGULAR | (shared ? VMA.FILE_SHARED : VMA.FILE_PRIVATE);
    case 'memfd':
      return VMA.REGULAR | VMA.MEMFD | (shared ? VMA.FILE_SHARED : VMA.FILE_PRIVATE);
    case 'ring':
      return VMA.AIORING;
    case 'socket':
      return VMA.REGULAR | VMA.SOCKET;
    case 'uring':
      return VMA.REGULAR | VMA.FILE_SHARED | VMA.PLUGIN;
    case 'sysv':
      return VMA.REGULAR | VMA.SYSVIPC | VMA.ANON_SHARED;
    default:
      return backing satisfies never;
  }
}

/** `shmemDevice` is MAJOR:MINOR of the kernel's own tmpfs, where memfds and shared anonymous memory live. */
export function classify(mapping: DetailedMapping, shmemDevice: string): Vma {
  const backing = backingOf(mapping, shmemDevice);
  const anonymous = backing === 'anonymous' || backing === 'kernel' || backing === 'sysv';
  return {
    mapping,
    backing,
    status: statusOf(backing, mapping),
    prot: protOf(mapping.perms),
    flags: flagsOf(mapping) | (anonymous ? M.MAP_ANONYMOUS : 0),
    madv: adviceOf(mapping),
  };
}

/** Have pages of it their contents in the process's pages file? */
export function isPrivate(vma: { status: number }): boolean {
  const { status } = vma;
  if ((status & VMA.AIORING) !== 0) return true;
  if ((status & (VMA.VVAR | VMA.VSYSCALL)) !== 0 || (status & VMA.REGULAR) === 0) return false;
  return (status & (VMA.ANON_PRIVATE | VMA.FILE_PRIVATE)) !== 0;
}

/**
 * What must not be in the image: the workspaces of tapes. They lie side by side in a gap far from everything else,
 * so all mappings that touch the one of the leader, from its start on, are ours.
 */
export function withoutWorkspace(
  mappings: readonly DetailedMapping[],
  workspace: bigint | undefined,
): DetailedMapping[] {
  if (workspace === undefined) return [...mappings];
  const ours = new Set<DetailedMapping>();
  let end: bigint | undefined;
  for (const mapping of mappings) {
    const isFirst = mapping.start <= workspace && workspace < mapping.end;
    if (!isFirst && mapping.start !== end) continue;
    ours.add(mapping);
    end = mapping.end;
  }
  return mappings.filter((mapping) => !ours.has(mapping));
}

/** How a mapping is called in messages: `mapping 7f00-7f01 (/dev/fuse)`. */
export function nameOfMapping({ start, end, path }: DetailedMapping): string {
  const range = `mapping 0x${start.toString(16)}-0x${end.toString(16)}`;
  return path === '' ? range : `${range} (${path})`;
}
