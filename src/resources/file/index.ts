import type { FileKind } from '../contract.js';
import { bpfmap } from './bpfmap.js';
import { epoll } from './epoll.js';
import { eventfd } from './eventfd.js';
import { fanotify } from './fanotify.js';
import { fifo } from './fifo.js';
import { inotify } from './inotify.js';
import { ioUring } from './io-uring.js';
import { memfd } from './memfd.js';
import { namespace } from './namespace.js';
import { pidfd } from './pidfd.js';
import { pipe } from './pipe.js';
import { regular } from './regular.js';
import { signalfd } from './signalfd.js';
import { timerfd } from './timerfd.js';
import { tty } from './tty.js';

/** Every kind of open file, the more particular ones first. */
export const fileKinds: readonly FileKind[] = [
  memfd,
  eventfd,
  epoll,
  timerfd,
  signalfd,
  pidfd,
  inotify,
  fanotify,
  bpfmap,
  ioUring,
  namespace,
  tty,
  pipe,
  fifo,
  regular,
];

export { checkDescriptors, checkFiles } from './check.js';
export { DescriptorCollector } from './collect.js';
export { restoreFs } from './fs.js';
export { ioUringRequests } from './io-uring-resubmit.js';
export { fileLocks } from './locks.js';
export { MissingFileError } from './regular.js';
export { DescriptorSurvey } from './survey.js';
export { attachAll, completeTable, restoreTable } from './table.js';
