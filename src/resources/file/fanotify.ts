import * as E from '../../abi/event.js';
import { AT_FDCWD, F_SETFL, O_CLOEXEC } from '../../abi/fcntl.js';
import { createMessage, type fanotify_mark_entry, ImageError } from '../../image/index.js';
import type { FanotifyMark } from '../../kernel/procfs/fdinfo.js';
import { readMountinfo } from '../../kernel/procfs/mountinfo.js';
import type { Descriptor, DumpContext, FileKind, Holder } from '../contract.js';
import { refusalOf, refuseNow } from '../description/described.js';
import { dumpOwner, restoreOwner } from '../description/owner.js';
import { perRestore } from '../description/state.js';
import { SETTABLE } from '../description/status-flags.js';
import { FD_TYPE } from '../description/types.js';
import { mountsOf } from './handle.js';
import { retryUnread } from './unread.js';
import { openPathTarget, openTarget } from './watch-target.js';
import { checkWatched, handleEntry } from './watched.js';

/**
 * fanotify(7): the group's flags, and marks on inodes, mounts and file systems with their events and those they ignore,
 * all in fdinfo. Unread events are treated as inotify's are. Groups that are asked for permission cannot be saved: whoever
 * opens a file would wait for the frozen program, and so might we.
 */
const MARK = { inode: 1, mount: 2, fileSystem: 3 } as const;

export const fanotify: FileKind = {
  name: 'fanotify',
  support:
    'flags, marks of inodes, mounts and file systems with their events; not with unread events, nor for permission events',
  member: 'ffy',

  recognise: ({ info }) => info.link === 'anon_inode:[fanotify]',

  check(descriptor, refuse, options) {
    const { info } = descriptor.info;
    for (const mark of info.fanotify) {
      const watched = watchedBy(mark);
      if (watched !== undefined) checkWatched(watched, 'a mark', descriptor, refuse, options);
      else if (placeOf(mark, descriptor) === undefined) refuse(refusalOf(descriptor, nowhere(mark), REMOVE));
    }
    if (info.fanotify.some(({ mask, ignoredMask }) => ((mask | ignoredMask) & PERMISSION_EVENTS) !== 0))
      refuse(
        refusalOf(
          descriptor,
          'it decides whether others may open or read files (permission events), and they all wait while it stands still',
          REMOVE,
        ),
      );
    if (info.fields.has('fanotify mnt_ns'))
      refuse(refusalOf(descriptor, 'it has a mark on a mount namespace, which cannot be saved', REMOVE));
  },

  dump(descriptor, id, taken, context) {
    const { info } = descriptor.info;
    retryUnread(descriptor, taken, context);
    const group = info.fanotifyGroup;
    if (group === undefined) throw new Error(`${descriptor.info.link}: fdinfo has no flags of the group`);
    const ffy = {
      id,
      flags: info.flags & ~O_CLOEXEC,
      fown: dumpOwner(descriptor, taken, context),
      faflags: group.flags,
      evflags: group.eventFlags,
      mark: info.fanotify.map((mark) => ({ id, ...markEntry(mark, descriptor, context) })),
    };
    return createMessage('files', { type: FD_TYPE.ffy, id, ffy });
  },

  open({ id, ffy }, holder) {
    if (ffy === undefined) throw new ImageError('files.img', `file ${id} is no fanotify`);
    const { tape } = holder;
    const fd = tape.call('fanotify_init', [ffy.faflags, ffy.evflags]);
    // The group goes on showing what it was made with, FAN_NONBLOCK too, when the description's flag was changed since.
    tape.call('fcntl', [fd, F_SETFL, ffy.flags & SETTABLE]);
    restoreOwner(`file:${id}`, ffy.fown, holder);
    return fd;
  },

  connect({ id, ffy }, holder) {
    const paths = (ffy?.mark ?? []).map((mark) => targetOf(mark, holder));
    targets(holder).set(id, paths);
  },

  watch({ id, ffy }, holder) {
    const fd = holder.slot(`file:${id}`);
    const paths = targets(holder).get(id);
    ffy?.mark.forEach((mark, index) => {
      holder.last.about(`mark of fanotify ${id}`);
      addMark(fd, mark, paths?.[index] ?? '', holder);
    });
  },
};

/** The last one is FAN_PRE_ACCESS, of Linux 6.14. */
const PERMISSION_EVENTS = E.FAN_OPEN_PERM | E.FAN_ACCESS_PERM | E.FAN_OPEN_EXEC_PERM | 0x10_0000;

const REMOVE = 'let the program remove the mark';

function watchedBy({ ino, sdev, handle }: FanotifyMark) {
  return ino === undefined || sdev === undefined ? undefined : { device: sdev, inode: ino, handle };
}

/** Where the mount or file system of a mark is to be found. */
function placeOf({ mntId, sdev }: FanotifyMark, { process }: Descriptor): string | undefined {
  if (mntId !== undefined) return readMountinfo(process.pid).find(({ id }) => id === mntId)?.mountPoint;
  return sdev === undefined ? undefined : mountsOf(sdev)[0]?.mountPoint;
}

function nowhere({ mntId, sdev = 0 }: FanotifyMark): string {
  return mntId === undefined
    ? `it has a mark on file system ${sdev >>> 20}:${sdev & 0xfffff}, which is not mounted`
    : `it has a mark on mount ${mntId}, which is not in the mount namespace of the process`;
}

function markEntry(mark: FanotifyMark, descriptor: Descriptor, context: DumpContext) {
  const { mflags, mask, ignoredMask, sdev = 0, mntId } = mark;
  const common = { mflags, mask, ignoredMask, sDev: sdev };
  const watched = watchedBy(mark);
  if (watched !== undefined) {
    const ie = { iIno: watched.inode, fHandle: handleEntry(watched, context.options) };
    return { ...common, type: MARK.inode, ie };
  }
  const path = placeOf(mark, descriptor) ?? refuseNow(context, descriptor, nowhere(mark), REMOVE);
  // CRIU knows no marks of file systems, and refuses their type.
  const type = mntId === undefined ? MARK.fileSystem : MARK.mount;
  return { ...common, type, me: { mntId: mntId ?? 0, path } };
}

const targets = perRestore(() => new Map<number, readonly string[]>());

function targetOf({ type, sDev, ie, me }: fanotify_mark_entry, holder: Holder): string {
  if (type === MARK.inode && ie?.fHandle !== undefined)
    return openTarget({ device: sDev, inode: ie.iIno, handle: ie.fHandle }, holder);
  if ((type === MARK.mount || type === MARK.fileSystem) && me !== undefined) {
    const path = me.path.startsWith('/') ? me.path : `/${me.path}`;
    return openPathTarget(path, holder);
  }
  throw new ImageError('files.img', `a mark of fanotify of type ${type}, which is unknown or lacks its file`);
}

const KIND_FLAGS: Readonly<Record<number, number>> = {
  [MARK.inode]: E.FAN_MARK_INODE,
  [MARK.mount]: E.FAN_MARK_MOUNT,
  [MARK.fileSystem]: E.FAN_MARK_FILESYSTEM,
};

/** Its events, then those it ignores: by the old way or, as its flags say, by FAN_MARK_IGNORE. */
function addMark(fd: number, mark: fanotify_mark_entry, path: string, holder: Holder): void {
  const { last } = holder;
  const { mask, ignoredMask, mflags } = mark;
  const flags = E.FAN_MARK_ADD | (KIND_FLAGS[mark.type] ?? 0) | (mflags & E.FAN_MARK_EVICTABLE);
  const place = last.string(path);
  if (mask !== 0) last.call('fanotify_mark', [fd, flags, mask >>> 0, AT_FDCWD, place]);
  if ((ignoredMask & ~FLAGS_OF_EVENTS) === 0) return;
  const isNew = (mflags & E.FAN_MARK_IGNORE) !== 0;
  const how = isNew ? E.FAN_MARK_IGNORE : E.FAN_MARK_IGNORED_MASK;
  const ignored = isNew ? ignoredMask : ignoredMask & ~FLAGS_OF_EVENTS;
  const ignoring = flags | how | (mflags & E.FAN_MARK_IGNORED_SURV_MODIFY);
  last.call('fanotify_mark', [fd, ignoring, ignored >>> 0, AT_FDCWD, place]);
}

/** Bits of a mask that are no events; in the old way of ignoring they mean nothing (fs/notify/fanotify). */
const FLAGS_OF_EVENTS = E.FAN_ONDIR | E.FAN_EVENT_ON_CHILD;
