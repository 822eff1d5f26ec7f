import { EFD_SEMAPHORE } from '../../abi/event.js';
import { O_CLOEXEC } from '../../abi/fcntl.js';
import { createMessage, type fown_entry, ImageError } from '../../image/index.js';
import type { Descriptor, FileKind, file_entry } from '../contract.js';
import { dumpOwner, nobody, restoreOwner } from '../description/owner.js';
import { setStatusFlags } from '../description/status-flags.js';
import { FD_TYPE } from '../description/types.js';

/**
 * eventfd(2): a counter of 64 bits, in fdinfo. Whether reads take one or all (EFD_SEMAPHORE) is shown from Linux 6.5;
 * before, it is taken for a plain one.
 */
const INITIAL_MAX = 0xffff_ffffn;

export const eventfd: FileKind = {
  name: 'eventfd',
  support: 'counter, flags, semaphore mode (from Linux 6.5)',
  member: 'efd',

  recognise: ({ info }) => info.link === 'anon_inode:[eventfd]',

  dump(descriptor, id, taken, context) {
    return entryOf(descriptor, id, dumpOwner(descriptor, taken, context));
  },

  ask({ info }, survey) {
    const { flags, mntId, ino } = info.info;
    // All anonymous inodes are one; what is shown tells them apart.
    survey.begins(`pos:\t0\nflags:\t0${flags.toString(8)}\nmnt_id:\t${mntId}\nino:\t${ino}\neventfd-count:`);
    return (descriptor, id, { signum }) => entryOf(descriptor, id, nobody(signum));
  },

  open({ id, efd }, holder) {
    if (efd === undefined) throw new ImageError('files.img', `file ${id} is no eventfd`);
    const { tape } = holder;
    const initial = efd.counter > INITIAL_MAX ? 0n : efd.counter;
    const fd = tape.call('eventfd2', [initial, (efd.flags & EFD_SEMAPHORE) | O_CLOEXEC]);
    if (efd.counter > INITIAL_MAX) {
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setBigUint64(0, efd.counter, true);
      tape.call('write', [fd, tape.space(bytes), 8], 8);
    }
    setStatusFlags(tape, fd, efd.flags);
    restoreOwner(`file:${id}`, efd.fown, holder);
    return fd;
  },
};

function entryOf({ info }: Descriptor, id: number, fown: fown_entry): file_entry {
  const { eventfd: state, flags } = info.info;
  if (state === undefined) throw new Error(`${info.link}: fdinfo has no eventfd-count`);
  const own = flags & ~O_CLOEXEC;
  const efd = {
    id,
    // The image has no field for the semaphore mode. This is the lowest bit of the access mode, which is always
    // O_RDWR here, and no F_SETFL of anybody looks at it.
    flags: state.semaphore === true ? own | EFD_SEMAPHORE : own,
    fown,
    counter: state.count,
  };
  return createMessage('files', { type: FD_TYPE.efd, id, efd });
}
