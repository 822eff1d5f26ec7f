import { release } from 'node:os';
import { F_SEAL_SEAL, F_SEAL_WRITE, O_ACCMODE, O_RDONLY, O_RDWR } from '../../abi/fcntl.js';
import { MAP_DROPPABLE, MAP_HUGETLB } from '../../abi/mman.js';
import { ImageError } from '../../image/errors.js';
import type { ImageReader } from '../../image/reader.js';
import type { memfd_inode_entry, mm_entry, vma_entry } from '../../image/schema/index.js';
import type { ProcessImage } from '../contract.js';
import { ANONYMOUS_NAMES } from './memfd.js';
import type { Span } from './scan.js';
import { isPrivate, VMA } from './vma.js';

/** What an image says of memory, sorted by when and how it is rebuilt. */

export function mmOf(image: ProcessImage): mm_entry {
  if (image.mm === undefined) throw new ImageError(image.reader.directory, `${image.name} has no memory`);
  return image.mm;
}

export function isGuard({ status }: vma_entry): boolean {
  return (status & VMA.GUARD) !== 0;
}

/** Of asynchronous I/O; with a context, or what a child has of its parent's. */
export function isRing({ status }: vma_entry): boolean {
  return (status & VMA.AIORING) !== 0;
}

export function isKernel({ status }: vma_entry): boolean {
  return (status & (VMA.VDSO | VMA.VVAR | VMA.VSYSCALL)) !== 0;
}

export function isSysv({ status }: vma_entry): boolean {
  return (status & VMA.SYSVIPC) !== 0;
}

/**
 * Private memory that children may inherit, so it is there before they are forked. Not huge pages, of which a child
 * has none reserved, and nothing that fork would treat in a way of its own.
 */
export function isEarly(vma: vma_entry): boolean {
  if (!isPrivate(vma) || isKernel(vma) || isGuard(vma) || isRing(vma)) return false;
  return (vma.flags & (MAP_HUGETLB | MAP_DROPPABLE)) === 0;
}

/** Private memory that is made when no child can inherit it any more. */
export function isLate(vma: vma_entry): boolean {
  return isPrivate(vma) && !isKernel(vma) && !isEarly(vma) && !isRing(vma);
}

/** Of an io_uring, which is mapped in a way of its own. */
export function isUring({ status }: vma_entry): boolean {
  return (status & VMA.PLUGIN) !== 0;
}

export function isShared(vma: vma_entry): boolean {
  const shared = VMA.FILE_SHARED | VMA.ANON_SHARED | VMA.SOCKET;
  return (vma.status & shared) !== 0 && !isSysv(vma) && !isUring(vma);
}

export function spanOfEntry({ start, end }: vma_entry): Span {
  return { start: Number(start), end: Number(end) };
}

/** memfd.img, and which of its inodes the ids in files.img stand for. */
export interface Inodes {
  readonly all: readonly memfd_inode_entry[];
  readonly byFile: ReadonlyMap<bigint, memfd_inode_entry>;
}

const inodes = new WeakMap<ImageReader, Inodes>();

export function inodesOf(reader: ImageReader): Inodes {
  const cached = inodes.get(reader);
  if (cached !== undefined) return cached;
  const all = reader.readOptional('memfd') ?? [];
  const byId = new Map(all.map((inode) => [Number(inode.inodeId), inode]));
  const byFile = new Map<bigint, memfd_inode_entry>();
  for (const { id, memfd } of all.length === 0 ? [] : reader.read('files')) {
    const inode = memfd === undefined ? undefined : byId.get(memfd.inodeId);
    if (inode !== undefined) byFile.set(BigInt(id), inode);
  }
  const read = { all, byFile };
  inodes.set(reader, read);
  return read;
}

/** Shared anonymous memory goes by these names; a memfd of such a name that takes no seals would look the same. */
export function isAnonymous({ name, seals }: memfd_inode_entry): boolean {
  return ANONYMOUS_NAMES.includes(name) && seals === F_SEAL_SEAL;
}

export function keyOfInode({ inodeId }: memfd_inode_entry): string {
  return `memfd:${inodeId}`;
}

/**
 * A memfd sealed against writing is mapped shared through a description that can write only since Linux 6.7, if the
 * seal is there first; before, through one that cannot.
 */
export function isSealedFirst({ seals }: memfd_inode_entry): boolean {
  return (seals & F_SEAL_WRITE) !== 0 && kernelIsAtLeast(6, 7);
}

export function isReadOnly({ seals }: memfd_inode_entry): boolean {
  return (seals & F_SEAL_WRITE) !== 0 && !kernelIsAtLeast(6, 7);
}

export function keyOfReadOnly(inode: memfd_inode_entry): string {
  return `${keyOfInode(inode)}:read`;
}

function kernelIsAtLeast(major: number, minor: number): boolean {
  const [own = 0, ownMinor = 0] = release().split('.').map(Number);
  return own > major || (own === major && ownMinor >= minor);
}

/** The access a file has to be open with to be mapped, where the entry of the file says otherwise. */
export function otherAccess(reader: ImageReader, vma: vma_entry): number | undefined {
  if (!Object.hasOwn(vma, 'fdflags')) return undefined;
  const wanted = vma.fdflags & O_ACCMODE;
  const flags = accessesOf(reader).get(vma.shmid);
  return flags === undefined || flags === wanted ? undefined : wanted;
}

const accesses = new WeakMap<ImageReader, ReadonlyMap<bigint, number>>();

/** How the files of an image that can be mapped are open, by their id. */
function accessesOf(reader: ImageReader): ReadonlyMap<bigint, number> {
  const known =
    accesses.get(reader) ??
    new Map(
      reader.read('files').flatMap(({ id, reg, memfd }): [bigint, number][] => {
        const flags = reg?.flags ?? memfd?.flags;
        return flags === undefined ? [] : [[BigInt(id), flags & O_ACCMODE]];
      }),
    );
  accesses.set(reader, known);
  return known;
}

export function keyOfFile({ shmid }: vma_entry, access: number | undefined): string {
  return access === undefined ? `file:${shmid}` : `file:${shmid}@${access}`;
}

/** The holder's key of what is mapped. */
export function keyOfMapped(reader: ImageReader, vma: vma_entry): string {
  if ((vma.status & VMA.ANON_SHARED) !== 0) return `shmem:${vma.shmid}`;
  const inode = (vma.status & VMA.MEMFD) === 0 ? undefined : inodesOf(reader).byFile.get(vma.shmid);
  if (inode === undefined) return keyOfFile(vma, otherAccess(reader, vma));
  if (isReadOnly(inode)) return keyOfReadOnly(inode);
  const access = Object.hasOwn(vma, 'fdflags') ? vma.fdflags & O_ACCMODE : O_RDONLY;
  return access === O_RDWR ? keyOfInode(inode) : keyOfFile(vma, otherAccess(reader, vma));
}
