import { closeSync, fstatSync, statfsSync } from 'node:fs';
import { ERRNO } from '../../abi/errno.js';
import { F_DUPFD_CLOEXEC, F_GET_SEALS, F_SEAL_SEAL, O_RDONLY } from '../../abi/fcntl.js';
import { MAP_HUGE_SHIFT, MFD_CLOEXEC, MFD_HUGETLB } from '../../abi/mman.js';
import { createMessage } from '../../image/codec.js';
import type { memfd_inode_entry } from '../../image/schema/index.js';
import { SyscallError } from '../../kernel/errors.js';
import { scratchString } from '../../kernel/memory.js';
import { attempt, syscall } from '../../kernel/syscall.js';
import type { FileCollector, MemfdInodes } from '../contract.js';
import { copyContents } from './contents.js';
import type { PagesFiles } from './pages-file.js';

/**
 * Inodes of the kernel's own tmpfs and hugetlbfs: memfds, and shared anonymous memory, which is the same without a
 * name of its own (its link reads `/dev/zero (deleted)`, or `/anon_hugepage (deleted)`) and goes into the image in
 * the same way, as in CRIU's since 3.13.
 */

const PREFIX = '/memfd:';
const DELETED = ' (deleted)';
/** Names that shared anonymous memory goes by in memfd.img. */
export const ANONYMOUS_NAMES: readonly string[] = ['/dev/zero', '/anon_hugepage'];
const HUGETLBFS_MAGIC = 0x958458f6;
const FILE_TYPE_MEMFD = 18;

interface Inode {
  readonly id: number;
  readonly shmid: number;
  readonly fd: number;
  readonly name: string;
}

let shmemDevice: string | undefined;

/** MAJOR:MINOR of the kernel's own tmpfs, as maps has it. */
export function deviceOfShmem(): string {
  if (shmemDevice === undefined) {
    const fd = syscall('memfd_create', [scratchString('stasis-probe'), MFD_CLOEXEC]);
    const { dev } = fstatSync(fd, { bigint: true });
    closeSync(fd);
    shmemDevice = `${(dev >> 8n) & 0xfffn}:${(dev & 0xffn) | ((dev >> 12n) & 0xfff00n)}`;
  }
  return shmemDevice;
}

/** One a dump; `write` is called by memory's dump, after which nothing more can be added. */
export class MemfdCollector implements MemfdInodes, Disposable {
  readonly #inodes = new Map<string, Inode>();
  readonly #shmids = new Set<number>();
  readonly #files = new Map<string, number>();

  recognises(link: string): boolean {
    return link.startsWith(PREFIX) || ANONYMOUS_NAMES.some((name) => link === name + DELETED);
  }

  add(fd: number, link: string): number {
    const { dev, ino } = fstatSync(fd, { bigint: true });
    const key = `${dev}:${ino}`;
    const known = this.#inodes.get(key);
    if (known !== undefined) return known.id;
    const path = link.endsWith(DELETED) ? link.slice(0, -DELETED.length) : link;
    const inode = {
      id: this.#inodes.size + 1,
      shmid: this.#freeShmid(Number(ino & 0xffff_ffffn)),
      fd: syscall('fcntl', [fd, F_DUPFD_CLOEXEC, 0], link),
      name: path.startsWith(PREFIX) ? path.slice(PREFIX.length) : path,
    };
    this.#inodes.set(key, inode);
    return inode.id;
  }

  /** The number of the inode, unless one of the other file system (tmpfs, hugetlbfs) has it too. */
  #freeShmid(ino: number): number {
    let shmid = ino;
    while (this.#shmids.has(shmid)) shmid = (shmid + 1) >>> 0;
    this.#shmids.add(shmid);
    return shmid;
  }

  /** The id in files.img of a description through which it is mapped, open with `flags` (O_RDONLY, O_RDWR). */
  mapped(inodeId: number, flags: number, files: FileCollector): number {
    const key = `${inodeId}:${flags}`;
    const known = this.#files.get(key);
    if (known !== undefined) return known;
    const fown = { uid: 0, euid: 0, signum: 0, pidType: 0, pid: 0 };
    const file = files.add((id) =>
      createMessage('files', {
        type: FILE_TYPE_MEMFD,
        id,
        memfd: { id, flags, pos: 0n, fown, inodeId },
      }),
    );
    this.#files.set(key, file);
    return file;
  }

  /** Write memfd.img and the contents; answers the number of pages. */
  write(pages: PagesFiles): { entries: memfd_inode_entry[]; pages: number } {
    let count = 0;
    const entries: memfd_inode_entry[] = [];
    for (const inode of this.#inodes.values()) {
      const entry = describe(inode);
      entries.push(entry);
      if (entry.size === 0n) continue;
      count += pages.add(entry.shmid, { shmem: true }, (target, tell) => {
        const source = reopened(inode);
        try {
          copyContents(source, Number(entry.size), target, inode.name, tell);
        } finally {
          closeSync(source);
        }
      });
    }
    return { entries, pages: count };
  }

  [Symbol.dispose](): void {
    for (const { fd } of this.#inodes.values()) closeSync(fd);
    this.#inodes.clear();
  }
}

/** A description of our own: reading through the program's would move its offset. */
function reopened({ fd, name }: Inode): number {
  const O_CLOEXEC = 0o2000000;
  const path = scratchString(`/proc/self/fd/${fd}`);
  return syscall('openat', [-100, path, O_RDONLY | O_CLOEXEC, 0], `memory ${name}`);
}

function describe(inode: Inode): memfd_inode_entry {
  const { uid, gid, size, mode } = fstatSync(inode.fd, { bigint: true });
  const hugetlb = hugetlbFlag(inode.fd);
  return createMessage('memfd', {
    name: inode.name,
    uid: Number(uid),
    gid: Number(gid),
    size,
    shmid: inode.shmid,
    seals: sealsOf(inode),
    inodeId: BigInt(inode.id),
    mode: Number(mode),
    ...(hugetlb === 0 ? {} : { hugetlbFlag: hugetlb }),
  });
}

/** EINVAL: a kernel or file system that knows no seals, so none can be added either. */
function sealsOf({ fd, name }: Inode): number {
  const seals = attempt('fcntl', [fd, F_GET_SEALS, 0]);
  if (seals === -ERRNO.EINVAL) return F_SEAL_SEAL;
  if (seals < 0) throw new SyscallError('fcntl(F_GET_SEALS)', -seals, `memory ${name}`);
  return seals;
}

function hugetlbFlag(fd: number): number {
  const { type, bsize } = statfsSync(`/proc/self/fd/${fd}`);
  return type === HUGETLBFS_MAGIC ? MFD_HUGETLB | (Math.log2(bsize) << MAP_HUGE_SHIFT) : 0;
}
