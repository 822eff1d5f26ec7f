import { ERRNO } from '../../abi/errno.js';
import { S_IFDIR, S_IFMT } from '../../abi/fcntl.js';
import { SyscallError } from '../../kernel/errors.js';
import { type FileStat, statPath } from '../../kernel/stat.js';
import { pathBytes } from '../description/calls.js';

/**
 * Where a file can be found again. d_path (fs/d_path.c) appends ' (deleted)' where the name was removed, but a file
 * may be called that, and a name may lead to another file by now; so what counts is whether the name leads to the same
 * inode.
 */
export type Place =
  /** Its name leads to it. */
  | { readonly kind: 'visible'; readonly path: string }
  /** No name leads to it any more: its contents have to be saved. */
  | { readonly kind: 'unlinked'; readonly path: string }
  /** The name it was opened by is gone or taken, but it has another one. */
  | { readonly kind: 'linked elsewhere'; readonly path: string }
  /** Its name leads to something else though it was never removed: a mount hides it, or it is of another namespace. */
  | { readonly kind: 'hidden'; readonly path: string };

const DELETED = ' (deleted)';

/** Looked for once for each look at a descriptor. */
const known = new WeakMap<FileStat, Place>();

export function placeOf(link: string, stat: FileStat): Place {
  const place = known.get(stat) ?? findPlace(link, stat);
  known.set(stat, place);
  return place;
}

function findPlace(link: string, stat: FileStat): Place {
  const found = statOrNone(link);
  if (found !== undefined && sameInode(found, stat)) return { kind: 'visible', path: link };
  const wasRemoved = link.endsWith(DELETED);
  const path = wasRemoved ? link.slice(0, -DELETED.length) : link;
  const isDirectory = (Number(stat.mode) & S_IFMT) === S_IFDIR;
  // A directory has one name; some file systems (overlay) leave its link count after rmdir(2).
  if (stat.nlink === 0n || (isDirectory && wasRemoved)) return { kind: 'unlinked', path };
  if (wasRemoved) return { kind: 'linked elsewhere', path };
  return { kind: 'hidden', path };
}

/** A path's own stat, undefined where it leads nowhere. */
export function statOrNone(path: string): FileStat | undefined {
  const stat = statPath(pathBytes(path), false);
  if (typeof stat !== 'number') return stat;
  if (NOWHERE.has(-stat)) return undefined;
  throw new SyscallError('statx', -stat, path);
}

const NOWHERE: ReadonlySet<number> = new Set([ERRNO.ENOENT, ERRNO.ENOTDIR, ERRNO.EACCES, ERRNO.ELOOP]);

export function sameInode(a: FileStat, b: FileStat): boolean {
  return a.dev === b.dev && a.ino === b.ino;
}

/** The directory a path is in. */
export function directoryOf(path: string): string {
  const slash = path.lastIndexOf('/');
  return slash <= 0 ? '/' : path.slice(0, slash);
}
