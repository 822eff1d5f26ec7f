import type { FileKind } from '../contract.js';
import { epoll } from './epoll.js';
import { eventfd } from './eventfd.js';
import { fifo } from './fifo.js';
import { memfd } from './memfd.js';
import { namespace } from './namespace.js';
import { pipe } from './pipe.js';
import { regular } from './regular.js';
import { signalfd } from './signalfd.js';
import { timerfd } from './timerfd.js';
import { tty } from './tty.js';
import { unixPair } from './unix.js';

/** Every kind of open file, the more particular ones first. */
export const fileKinds: readonly FileKind[] = [
  memfd,
  eventfd,
  epoll,
  timerfd,
  signalfd,
  namespace,
  unixPair,
  tty,
  pipe,
  fifo,
  regular,
];

export { checkDescriptors, checkFiles } from './check.js';
export { DescriptorCollector } from './collect.js';
export { restoreFs } from './fs.js';
export { FIRST_SLOT, StemHolder, UnknownFileError } from './holder.js';
export { DescriptorLimitError } from './limit.js';
export { MissingFileError } from './regular.js';
export { attachAll, restoreTable } from './table.js';
export { StemTaker } from './taker.js';
export { helperPids } from './used.js';
