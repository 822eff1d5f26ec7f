import type { core_entry } from '../../image/schema/index.js';
import type { TaskState } from '../contract.js';
import { has, taskCore, threadCore } from './core.js';

/**
 * Blocked signals: PTRACE_GETSIGMASK, of every thread. The image keeps the leader's in the process's part. Nothing is
 * put on a tape for it, because all stays blocked until the task is let go; then the engine sets `maskOf`.
 */
export const signalMask: TaskState = {
  name: 'blocked signals',
  scope: 'thread',
  support: 'the mask of every thread',

  note({ core, frozen, isLeader }) {
    if (frozen === undefined) return;
    if (isLeader) taskCore(core).blkSigset = frozen.mask;
    else threadCore(core).blkSigset = frozen.mask;
  },
};

/** The mask to give a restored thread by PTRACE_SETSIGMASK. */
export function maskOf(core: core_entry): bigint {
  const thread = core.threadCore;
  if (thread !== undefined && has(thread, 'blkSigset')) return thread.blkSigset;
  return core.tc?.blkSigset ?? 0n;
}
