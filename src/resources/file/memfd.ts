import { O_CLOEXEC } from '../../abi/fcntl.js';
import { createMessage, ImageError } from '../../image/index.js';
import type { FileKind } from '../contract.js';
import { dumpOwner, restoreOwner } from './owner.js';
import { FD_TYPE } from './types.js';
import { slotPath } from './unlinked.js';

/**
 * Descriptions of memfds. The inode, with its contents, size and seals, is the memory module's (memfd.img); a
 * description has only flags and an offset, and is opened anew through /proc/self/fd of the one the holder has.
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
    const path = tape.string(slotPath(`memfd:${memfd.inodeId}`, holder));
    const fd = tape.call('open', [path, memfd.flags, 0]);
    if (memfd.pos !== 0n) tape.call('lseek', [fd, memfd.pos, 0], memfd.pos);
    restoreOwner(`file:${id}`, memfd.fown, holder);
    return fd;
  },
};
