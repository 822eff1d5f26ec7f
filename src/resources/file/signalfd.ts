import { O_CLOEXEC } from '../../abi/fcntl.js';
import { createMessage, ImageError } from '../../image/index.js';
import type { FileKind } from '../contract.js';
import { dumpOwner, restoreOwner } from '../description/owner.js';
import { setStatusFlags } from '../description/status-flags.js';
import { FD_TYPE } from '../description/types.js';

/** signalfd(2): only a mask; the signals are the reader's own. */
export const signalfd: FileKind = {
  name: 'signalfd',
  support: 'mask, flags',
  member: 'sgfd',

  recognise: ({ info }) => info.link === 'anon_inode:[signalfd]',

  dump(descriptor, id, taken, context) {
    const { sigmask, flags } = descriptor.info.info;
    if (sigmask === undefined) throw new Error(`${descriptor.info.link}: fdinfo has no sigmask`);
    const sgfd = {
      id,
      flags: flags & ~O_CLOEXEC,
      fown: dumpOwner(descriptor, taken, context),
      sigmask,
    };
    return createMessage('files', { type: FD_TYPE.sgfd, id, sgfd });
  },

  open({ id, sgfd }, holder) {
    if (sgfd === undefined) throw new ImageError('files.img', `file ${id} is no signalfd`);
    const { tape } = holder;
    const mask = new Uint8Array(8);
    new DataView(mask.buffer).setBigUint64(0, sgfd.sigmask, true);
    const fd = tape.call('signalfd4', [-1, tape.space(mask), 8, O_CLOEXEC]);
    setStatusFlags(tape, fd, sgfd.flags);
    restoreOwner(`file:${id}`, sgfd.fown, holder);
    return fd;
  },
};
