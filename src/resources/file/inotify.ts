import { IN_ALL_EVENTS, IN_CLOEXEC, IN_EXCL_UNLINK, IN_ONESHOT } from '../../abi/event.js';
import { O_CLOEXEC } from '../../abi/fcntl.js';
import { INOTIFY_IOC_SETNEXTWD } from '../../abi/ioctl.js';
import { createMessage, ImageError } from '../../image/index.js';
import type { InotifyWatch } from '../../kernel/procfs/fdinfo.js';
import type { FileKind } from '../contract.js';
import { dumpOwner, restoreOwner } from '../description/owner.js';
import { perRestore } from '../description/state.js';
import { setStatusFlags } from '../description/status-flags.js';
import { FD_TYPE } from '../description/types.js';
import { retryUnread } from './unread.js';
import { openTarget } from './watch-target.js';
import { checkWatched, handleEntry } from './watched.js';

/**
 * inotify(7): watches with their ids, inodes and events, all in fdinfo. An id is given again by telling the kernel which
 * comes next (INOTIFY_IOC_SETNEXTWD, Linux 4.18). Unread events can be read once and never put back, so a tree that has
 * some is let go and tried again. Not kept: which id would have come next.
 */
const WATCH_BITS = (IN_ALL_EVENTS | IN_EXCL_UNLINK | IN_ONESHOT) >>> 0;

export const inotify: FileKind = {
  name: 'inotify',
  support:
    'watches with their ids, events and files, also deleted ones that are open; not with unread events',
  member: 'ify',

  recognise: ({ info }) => info.link === 'anon_inode:inotify' || info.link === 'anon_inode:[inotify]',

  check(descriptor, refuse, options) {
    for (const watch of descriptor.info.info.inotify)
      checkWatched(watchedBy(watch), `watch ${watch.wd}`, descriptor, refuse, options);
  },

  dump(descriptor, id, taken, context) {
    const { info } = descriptor.info;
    retryUnread(descriptor, taken, context);
    const wd = info.inotify.map((watch) => ({
      id,
      iIno: watch.ino,
      mask: watch.mask,
      ignoredMask: watch.ignoredMask,
      sDev: watch.sdev,
      wd: watch.wd,
      fHandle: handleEntry(watchedBy(watch), context.options),
    }));
    const ify = { id, flags: info.flags & ~O_CLOEXEC, fown: dumpOwner(descriptor, taken, context), wd };
    return createMessage('files', { type: FD_TYPE.ify, id, ify });
  },

  open({ id, ify }, holder) {
    if (ify === undefined) throw new ImageError('files.img', `file ${id} is no inotify`);
    const { tape } = holder;
    const fd = tape.call('inotify_init1', [IN_CLOEXEC]);
    setStatusFlags(tape, fd, ify.flags);
    restoreOwner(`file:${id}`, ify.fown, holder);
    return fd;
  },

  connect({ id, ify }, holder) {
    const paths = (ify?.wd ?? []).map((watch) => {
      if (watch.fHandle === undefined) throw new ImageError('files.img', `inotify ${id}: a watch on nothing`);
      return openTarget({ device: watch.sDev, inode: watch.iIno, handle: watch.fHandle }, holder);
    });
    targets(holder).set(id, paths);
  },

  watch({ id, ify }, holder) {
    const { last } = holder;
    const fd = holder.slot(`file:${id}`);
    const paths = targets(holder).get(id);
    // The kernel goes on counting after the last one.
    const watches = (ify?.wd ?? []).map(({ wd, mask }, index) => ({ wd, mask, path: paths?.[index] ?? '' }));
    for (const { wd, mask, path } of watches.sort((a, b) => a.wd - b.wd)) {
      last.about(`watch ${wd} of inotify ${id}`);
      last.call('ioctl', [fd, INOTIFY_IOC_SETNEXTWD, wd]);
      last.call('inotify_add_watch', [fd, last.string(path), (mask & WATCH_BITS) >>> 0], wd);
    }
  },
};

function watchedBy({ sdev, ino, handle }: InotifyWatch) {
  return { device: sdev, inode: ino, handle };
}

/** Where each watch's file is found, by the inotify's id. */
const targets = perRestore(() => new Map<number, readonly string[]>());
