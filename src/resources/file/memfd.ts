import { O_ACCMODE, O_CLOEXEC, O_RDWR, SEEK_SET } from '../../abi/fcntl.js';
import { createMessage, ImageError, type memfd_file_entry } from '../../image/index.js';
import type { FileKind, Holder, Result } from '../contract.js';
import { dumpOwner, restoreOwner } from '../description/owner.js';
import { perRestore } from '../description/state.js';
import { setStatusFlags } from '../description/status-flags.js';
import { FD_TYPE } from '../description/types.js';
import { slotPath } from './unlinked.js';

/**
 * Descriptions of memfds. The inode, with its contents, size and seals, is the memory module's (memfd.img); a
 * description has only flags and an offset, and the others are opened anew through /proc/self/fd of the one the holder has.
 */
const LINK = /^\/memfd:.*\(deleted\)$/s;

export const memfd: FileKind = {
  name: 'memfd',
  support: 'descriptions of memfds: flags, offset; the inode is kept with the memory',
  member: 'memfd',

  recognise: ({ info }) => LINK.test(info.link) && info.stat.nlink === 0n,

  dump(descriptor, id, taken, context) {
    const { info } = descriptor;
    const flags = info.info.flags & ~O_CLOEXEC;
    const memfd = {
      id,
      flags,
      pos: info.info.pos,
      fown: dumpOwner(descriptor, taken, context),
      inodeId: context.memfds.add(taken, info.link),
    };
    return createMessage('files', { type: FD_TYPE.memfd, id, memfd });
  },

  open({ id, memfd }, holder) {
    if (memfd === undefined) throw new ImageError('files.img', `file ${id} is no memfd`);
    const { tape } = holder;
    const fd = openDescription(memfd, holder);
    tape.call('lseek', [fd, memfd.pos, SEEK_SET], memfd.pos);
    restoreOwner(`file:${id}`, memfd.fown, holder);
    return fd;
  },
};

const given = perRestore(() => new Set<number>());

/**
 * What memfd_create(2) makes does not count as a writer of the file, so it can be executed; what is opened through
 * /proc does (ETXTBSY). So the first description for reading and writing is the one the holder has.
 */
function openDescription(memfd: memfd_file_entry, holder: Holder): Result {
  const { tape } = holder;
  const key = `memfd:${memfd.inodeId}`;
  const isFirst = (memfd.flags & O_ACCMODE) === O_RDWR && !given(holder).has(memfd.inodeId);
  if (!isFirst) return tape.call('open', [tape.string(slotPath(key, holder)), memfd.flags, 0]);
  given(holder).add(memfd.inodeId);
  const fd = tape.call('dup', [holder.slot(key)]);
  setStatusFlags(tape, fd, memfd.flags);
  return fd;
}
