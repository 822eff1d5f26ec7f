import { lstatSync } from 'node:fs';
import {
  AT_FDCWD,
  AT_REMOVEDIR,
  AT_SYMLINK_NOFOLLOW,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_LARGEFILE,
  O_NOFOLLOW,
  O_PATH,
  O_RDWR,
  O_TMPFILE,
  S_IFDIR,
  S_IFLNK,
  S_IFMT,
  S_IFREG,
  UTIME_OMIT,
} from '../../abi/fcntl.js';
import { encodeName, fileOf, type ghost_file_entry } from '../../image/index.js';
import type { Holder, Tape } from '../contract.js';
import { pathBytes } from '../description/calls.js';
import { perRestore } from '../description/state.js';
import { type Extent, readGhost } from './ghost-image.js';
import { directoryOf, statOrNone } from './place.js';

/**
 * Ghosts at restore: the file is made by its old name and loses it at once, so that /proc/PID/fd reads as before and
 * nothing stays behind; every description of it is opened through /proc/self/fd/SLOT. What holds the slot in the
 * end is an O_PATH descriptor: a writable one would keep execve(2) and PR_SET_MM_EXE_FILE off the file (ETXTBSY).
 */
const made = perRestore(() => new Set<number>());

/** Made as the original was, by O_TMPFILE: it can still be given a name (linkat(2)), which others never again can. */
const unnamed = perRestore(() => new Map<number, string>());

/** The key of the description O_TMPFILE made, for the one of the image that was; taken once. */
export function takeUnnamed(id: number, holder: Holder): string | undefined {
  const key = unnamed(holder).get(id);
  unnamed(holder).delete(id);
  return key;
}

/** The key of a ghost's O_PATH descriptor; the file is made when first asked for. */
export function ghostKey(id: number, path: string, holder: Holder, neverNamed = false): string {
  const key = `ghost:${id}`;
  if (made(holder).has(id)) return key;
  made(holder).add(id);
  const { entry } = readGhost(holder.reader, id);
  const { tape } = holder;
  const free = statOrNone(path) === undefined;
  // A file that took the name since is not to be touched, not even for a moment.
  const name = free ? path : `${path}.stasis.${id}.ghost`;
  const parents = missingParents(name);
  for (const parent of parents) tape.call('mkdir', [tape.string(encodeName(parent)), 0o700]);
  const type = entry.mode & S_IFMT;
  if (type === S_IFREG) makeRegular(id, key, neverNamed ? undefined : name, directoryOf(name), holder);
  else if (type === S_IFDIR) makeDirectory(key, name, entry, holder);
  else makeNode(key, name, entry, holder);
  for (const parent of [...parents].reverse())
    tape.call('unlinkat', [AT_FDCWD, tape.string(encodeName(parent)), AT_REMOVEDIR]);
  return key;
}

/** Where a description of a held key is opened anew. */
export function slotPath(key: string, holder: Holder): string {
  return `/proc/self/fd/${holder.slot(key)}`;
}

function missingParents(path: string): string[] {
  const missing: string[] = [];
  for (let at = directoryOf(path); at !== '/'; at = directoryOf(at)) {
    if (lstatSync(pathBytes(at), { throwIfNoEntry: false }) !== undefined) break;
    missing.unshift(at);
  }
  return missing;
}

/** Without a name it is made by O_TMPFILE. */
function makeRegular(
  id: number,
  key: string,
  name: string | undefined,
  directory: string,
  holder: Holder,
): void {
  const { tape } = holder;
  const { entry, extents } = readGhost(holder.reader, id);
  if (name === undefined) {
    const place = tape.string(encodeName(directory));
    holder.hold(key, tape.call('open', [place, O_TMPFILE | O_RDWR | O_LARGEFILE, 0o600]));
    const original = `unnamed:${id}`;
    holder.hold(original, tape.call('dup', [holder.slot(key)]));
    unnamed(holder).set(id, original);
  } else {
    const path = tape.string(encodeName(name));
    holder.hold(key, tape.call('open', [path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_LARGEFILE, 0o600]));
    tape.call('unlink', [path]);
  }
  const file = holder.slot(key);
  if (extents.length > 0) copyExtents(id, file, extents, holder);
  const size = Number(entry.size);
  if (size > 0) tape.call('ftruncate', [file, size]);
  tape.call('fchown', [file, entry.uid, entry.gid]);
  tape.call('fchmod', [file, entry.mode & 0o7777]);
  tape.call('utimensat', [file, 0, tape.space(timesOf(entry)), 0]);
  toPathOnly(key, holder);
}

/** From the image's file to the ghost, in the kernel. */
function copyExtents(id: number, file: number, extents: readonly Extent[], holder: Holder): void {
  const { tape } = holder;
  const name = fileOf('ghost-file', id);
  const source = holder.reader.open(name);
  if (source === undefined) throw new Error(`${name} is missing`);
  const from = holder.bring(source);
  for (const extent of extents) {
    if (extent.length === 0) continue;
    const position = new Uint8Array(8);
    new DataView(position.buffer).setBigUint64(0, BigInt(extent.position), true);
    tape.call('lseek', [file, extent.offset, 0], extent.offset);
    tape.call('sendfile', [file, from, tape.space(position), extent.length], extent.length);
  }
  tape.call('close', [from]);
}

function makeDirectory(key: string, name: string, entry: ghost_file_entry, holder: Holder): void {
  const { tape } = holder;
  const path = tape.string(encodeName(name));
  tape.call('mkdir', [path, 0o700]);
  attributes(tape, path, entry);
  holder.hold(key, tape.call('open', [path, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0]));
  tape.call('unlinkat', [AT_FDCWD, path, AT_REMOVEDIR]);
}

function makeNode(key: string, name: string, entry: ghost_file_entry, holder: Holder): void {
  const { tape } = holder;
  const path = tape.string(encodeName(name));
  if ((entry.mode & S_IFMT) === S_IFLNK)
    tape.call('symlink', [tape.string(encodeName(entry.symlnkTarget)), path]);
  else tape.call('mknod', [path, entry.mode, entry.rdev]);
  attributes(tape, path, entry);
  holder.hold(key, tape.call('open', [path, O_PATH | O_NOFOLLOW, 0]));
  tape.call('unlink', [path]);
}

function attributes(tape: Tape, path: ReturnType<Tape['string']>, entry: ghost_file_entry): void {
  tape.call('lchown', [path, entry.uid, entry.gid]);
  if ((entry.mode & S_IFMT) !== S_IFLNK) tape.call('chmod', [path, entry.mode & 0o7777]);
  tape.call('utimensat', [AT_FDCWD, path, tape.space(timesOf(entry)), AT_SYMLINK_NOFOLLOW]);
}

function timesOf(entry: ghost_file_entry): Uint8Array {
  const bytes = new Uint8Array(32);
  const view = new DataView(bytes.buffer);
  [entry.atim, entry.mtim].forEach((time, index) => {
    view.setBigUint64(index * 16, time?.tvSec ?? 0n, true);
    view.setBigUint64(index * 16 + 8, time === undefined ? BigInt(UTIME_OMIT) : time.tvUsec * 1000n, true);
  });
  return bytes;
}

function toPathOnly(key: string, holder: Holder): void {
  const { tape } = holder;
  holder.hold(key, tape.call('open', [tape.string(slotPath(key, holder)), O_PATH, 0]));
}
