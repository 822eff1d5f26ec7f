import type { fs_entry } from '../../image/index.js';
import { createMessage } from '../../image/index.js';
import type { Tape } from '../../tape/tape.js';
import type { FileCollector, Process, Taker } from '../contract.js';

/**
 * Working directory, root and umask. The directories are entries of files.img like any other, so one that was removed
 * or lies outside of a chroot is one as well.
 */
export function dumpFs(process: Process, files: FileCollector): fs_entry {
  const { umask } = process.leader.status;
  return createMessage('fs', {
    cwdId: files.addLink(process, 'cwd', 0),
    rootId: files.addLink(process, 'root', 0),
    ...(umask === undefined ? {} : { umask }),
  });
}

/** Root first: fchdir(2) takes any directory that is open, chroot(2) only one with a name, and "." is one. */
export function restoreFs(entry: fs_entry, tape: Tape, taker: Taker): void {
  tape.about('root directory');
  const root = taker.take(`file:${entry.rootId}`);
  tape.call('fchdir', [root]);
  tape.call('chroot', [tape.string('.')]);
  tape.call('close', [root]);
  tape.about('working directory');
  const cwd = taker.take(`file:${entry.cwdId}`);
  tape.call('fchdir', [cwd]);
  tape.call('close', [cwd]);
  tape.about('umask');
  if (entry.umask !== undefined) tape.call('umask', [entry.umask]);
  tape.about(undefined);
}
