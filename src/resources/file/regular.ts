import {
  AT_FDCWD,
  AT_SYMLINK_NOFOLLOW,
  O_ACCMODE,
  O_APPEND,
  O_ASYNC,
  O_CLOEXEC,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_RDWR,
  O_TMPFILE,
  O_WRONLY,
  S_IFCHR,
  S_IFDIR,
  S_IFMT,
  S_IFREG,
  SEEK_SET,
  STATX_BASIC_STATS,
} from '../../abi/fcntl.js';
import {
  createMessage,
  encodeName,
  type fown_entry,
  ImageError,
  type reg_file_entry,
} from '../../image/index.js';
import { identityIn, STATX_BYTES } from '../../kernel/stat.js';
import type { Descriptor, DumpOptions, FileKind, file_entry, Holder, Result } from '../contract.js';
import { deviceNumbers, isPathOnly, pathBytes } from '../description/calls.js';
import { inherited } from '../description/inherit.js';
import { dumpOwner, nobody, restoreOwner } from '../description/owner.js';
import { perRestore } from '../description/state.js';
import { SETTABLE, setStatusFlags } from '../description/status-flags.js';
import { FD_TYPE, REMAP } from '../description/types.js';
import { breakLease } from './leases.js';
import { placeOf, statOrNone } from './place.js';
import { checkPlace, nameFor, procfsPid } from './remap.js';
import { ghostKey, slotPath, takeUnnamed } from './unlinked.js';

/**
 * Files that are opened by their name: regular files, directories, memory devices (/dev/null and its like), and
 * anything at all that is open with O_PATH. Read from /proc/PID/fd and fdinfo; kept is the name, not the contents,
 * unless no name leads to the file any more.
 */

/** Devices of drivers/char/mem.c keep no state of a description. */
const MEM_MAJOR = 1;

/** __O_TMPFILE, which open(2) takes only together with O_DIRECTORY and on a directory. */
const TMPFILE_BIT = O_TMPFILE & ~O_DIRECTORY;

export const regular: FileKind = {
  name: 'file',
  support:
    'regular files, directories, /dev/null and its like, O_PATH: name, flags, offset, owner of signals; deleted files with their contents (--ghost-limit), or by another name (--link-remap)',
  member: 'reg',

  recognise({ info }) {
    if (!info.link.startsWith('/')) return false;
    if (isPathOnly(info.info.flags)) return true;
    switch (Number(info.stat.mode) & S_IFMT) {
      case S_IFREG:
      case S_IFDIR:
        return true;
      case S_IFCHR:
        return deviceNumbers(info.stat.rdev).major === MEM_MAJOR;
      default:
        return false;
    }
  },

  check(descriptor, refuse, options) {
    if (isExternal(descriptor, options)) return;
    checkPlace(descriptor, refuse, options);
  },

  dump(descriptor, id, taken, context) {
    const isNamed = !isExternal(descriptor, context.options);
    const name = isNamed ? nameFor(descriptor, id, taken, context) : undefined;
    return entryOf(descriptor, id, dumpOwner(descriptor, taken, context), name);
  },

  /** Of one whose name leads to it. */
  ask({ info }, { tape, conditions }) {
    const { link, stat } = info;
    if (isPathOnly(info.info.flags) || placeOf(link, stat).kind !== 'visible') return undefined;
    const found = tape.space(STATX_BYTES);
    const path = tape.string(pathBytes(link));
    const answer = tape.call('statx', [AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, found], 'any');
    conditions.equals(answer, 0);
    for (const [at, value] of identityIn(stat))
      conditions.equals({ kind: 'inside', space: found, at }, value);
    return (descriptor, id, { signum }, context) => {
      const name = isExternal(descriptor, context.options) ? undefined : link;
      return entryOf(descriptor, id, nobody(signum), name);
    };
  },

  open(entry, holder) {
    const reg = regOf(entry);
    const given = inherited(holder, reg.ext ? [reg.name] : [reg.name.replace(/^\//, ''), reg.name]);
    if (given !== undefined) return given;
    if (reg.ext)
      throw new ImageError(
        'files.img',
        `${reg.name} is an external file: it is to be given by --inherit-fd fd[N]:${reg.name}`,
      );
    const fd = openNamed(reg, holder);
    position(reg, fd, holder);
    restoreOwner(`file:${reg.id}`, reg.fown, holder);
    return fd;
  },

  connect(entry, holder) {
    breakLease(entry, holder);
  },

  late(entry) {
    const { name } = regOf(entry);
    if (procfsPid(name) === undefined) return false;
    // Those of a descriptor, and of a thread that leads no process, are there when that is.
    const isOfThread = /^\/proc\/(\d+)\/task\/(?!\1(\/|$))/.test(name);
    return isOfThread || /\/fdinfo\/\d+$/.test(name) ? 'tables' : true;
  },
};

/** Without a `name` it is external. */
function entryOf(descriptor: Descriptor, id: number, fown: fown_entry, name: string | undefined): file_entry {
  const { info } = descriptor;
  const flags = info.info.flags & ~O_CLOEXEC;
  const mode = Number(info.stat.mode);
  const isPlain = (mode & S_IFMT) === S_IFREG;
  // A log that is only appended to may have grown by the restore.
  const isLog = (flags & (O_APPEND | O_ACCMODE)) === (O_APPEND | O_WRONLY);
  const reg = {
    id,
    flags,
    pos: info.info.pos,
    fown,
    name: name ?? externalKey(descriptor),
    mode,
    ...(isPlain && !isLog && name !== undefined ? { size: info.stat.size } : {}),
    ...(name === undefined ? { ext: true } : {}),
  };
  return createMessage('files', { type: FD_TYPE.reg, id, reg });
}

function regOf(entry: file_entry): reg_file_entry {
  if (entry.reg === undefined) throw new ImageError('files.img', `file ${entry.id} is no regular file`);
  return entry.reg;
}

/** `file[MNT_ID:INODE]`, both in hexadecimal, as `--external` names a file that need not have a name here. */
function externalKey({ info }: Descriptor): string {
  return `file[${info.info.mntId.toString(16)}:${info.stat.ino.toString(16)}]`;
}

function isExternal(descriptor: Descriptor, options: DumpOptions): boolean {
  return options.external.length > 0 && options.external.includes(externalKey(descriptor));
}

/** The description by its name, or by what stands in for a name that does not lead to it. */
function openNamed(reg: reg_file_entry, holder: Holder): Result {
  const remap = remaps(holder).get(reg.id);
  if (remap?.remapType === REMAP.ghost) return openGhost(reg, remap.remapId, holder);
  if (remap?.remapType === REMAP.linked) return openLinked(reg, remap.remapId, holder);
  if (procfsPid(reg.name) === undefined) validate(reg);
  return open(reg.name, reg.flags, holder);
}

const remaps = perRestore((holder) => {
  const entries = holder.reader.readOptional('remap-fpath') ?? [];
  // Without a type it is a ghost: images from before there were others.
  return new Map(
    entries.map(({ origId, remapId, remapType }) => [
      origId,
      { remapId, remapType: remapType ?? REMAP.ghost },
    ]),
  );
});

/** Flags that open(2) takes: not those of creation, and O_ASYNC only fcntl(2) makes work. */
function openFlags(flags: number): number {
  return flags & ~TMPFILE_BIT & ~O_CLOEXEC;
}

function open(path: string, flags: number, holder: Holder): Result {
  const { tape } = holder;
  const fd = tape.call('openat', [AT_FDCWD, tape.string(encodeName(path)), openFlags(flags), 0]);
  return fd;
}

function openGhost(reg: reg_file_entry, ghost: number, holder: Holder): Result {
  const key = ghostKey(ghost, reg.name, holder, neverNamed(holder).has(ghost));
  const wasUnnamed = (reg.flags & O_TMPFILE) === O_TMPFILE && (reg.flags & O_ACCMODE) === O_RDWR;
  const original = wasUnnamed ? takeUnnamed(ghost, holder) : undefined;
  if (original !== undefined) {
    const fd = holder.tape.call('dup', [holder.slot(original)]);
    setStatusFlags(holder.tape, fd, reg.flags);
    // Its offset is where the contents ended.
    holder.tape.call('lseek', [fd, 0, SEEK_SET]);
    return fd;
  }
  // /proc/self/fd/SLOT is a symbolic link, though one that always leads to the file.
  return open(slotPath(key, holder), reg.flags & ~O_NOFOLLOW, holder);
}

/** Ghosts that were made by O_TMPFILE, as one of their descriptions says. */
const neverNamed = perRestore((holder) => {
  const ids = new Set<number>();
  for (const [origId, { remapId, remapType }] of remaps(holder)) {
    const flags = namedFiles(holder).get(origId)?.flags ?? 0;
    if (remapType === REMAP.ghost && (flags & O_TMPFILE) === O_TMPFILE) ids.add(remapId);
  }
  return ids;
});

/** By the temporary name (a record of files.img of its own), under the lost one where that is free. */
function openLinked(reg: reg_file_entry, remapId: number, holder: Holder): Result {
  const { tape, last } = holder;
  const link = namedFiles(holder).get(remapId);
  if (link === undefined)
    throw new ImageError(
      'remap-fpath.img',
      `${reg.name}: files.img has no file ${remapId} with its other name`,
    );
  const other = tape.string(encodeName(link.name));
  const kept = unlinkedLast(holder);
  if (!kept.has(remapId)) {
    kept.add(remapId);
    last.about(`temporary name ${link.name}`);
    last.call('unlink', [last.string(encodeName(link.name))]);
  }
  if (statOrNone(link.name) === undefined)
    throw new MissingFileError(`${link.name} is missing, the temporary name of ${reg.name}`);
  if (statOrNone(reg.name) !== undefined) return open(link.name, reg.flags, holder);
  const name = tape.string(encodeName(reg.name));
  tape.call('linkat', [AT_FDCWD, other, AT_FDCWD, name, 0]);
  const fd = open(reg.name, reg.flags, holder);
  tape.call('unlink', [name]);
  return fd;
}

const unlinkedLast = perRestore(() => new Set<number>());

const namedFiles = perRestore((holder) => {
  const files = new Map<number, reg_file_entry>();
  for (const { reg } of holder.reader.read('files')) if (reg !== undefined) files.set(reg.id, reg);
  return files;
});

/** A file of the image that is not there, or not as it was. */
export class MissingFileError extends Error {
  override readonly name = 'MissingFileError';
  readonly code = 'EFILE';
}

/** Before anything is made: the file has to be there, and be what it was. */
function validate(reg: reg_file_entry): void {
  const stat = statOrNone(reg.name);
  if (stat === undefined) throw new MissingFileError(`${reg.name} is missing, which the image has open`);
  const mode = Number(stat.mode);
  if (reg.mode !== 0 && reg.mode !== undefined && mode !== reg.mode)
    throw new MissingFileError(
      `${reg.name} has mode 0${mode.toString(8)}, in the image it has 0${reg.mode.toString(8)}`,
    );
  const hasSize = Object.hasOwn(reg, 'size');
  if (hasSize && stat.size !== reg.size)
    throw new MissingFileError(
      `${reg.name} has ${stat.size} bytes, in the image it has ${reg.size}: it was changed since`,
    );
}

/** Offset and the flags that open(2) does not make work. */
function position(reg: reg_file_entry, fd: Result, holder: Holder): void {
  if (isPathOnly(reg.flags)) return;
  const { tape } = holder;
  if (reg.pos !== 0n) {
    // A device may have no offset to set, whatever it reads as.
    const isDevice = (reg.mode & S_IFMT) === S_IFCHR;
    tape.call('lseek', [fd, reg.pos, 0], isDevice ? 'any' : reg.pos);
  }
  if ((reg.flags & O_ASYNC) !== 0) setStatusFlags(tape, fd, reg.flags & SETTABLE);
}
