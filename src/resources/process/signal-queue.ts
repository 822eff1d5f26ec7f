import { create } from '@bufbuild/protobuf';
import {
  SIGINFO_OFFSET_SIGNO,
  SIGINFO_SIZE,
  SIGSET_SIZE,
  signalBit,
  signalName,
  signalsOf,
} from '../../abi/signal.js';
import type { core_entry } from '../../image/schema/index.js';
import {
  siginfo_entrySchema,
  type signal_queue_entry,
  signal_queue_entrySchema,
} from '../../image/schema/index.js';
import * as ptrace from '../../kernel/ptrace.js';
import type { Tape, TaskState } from '../contract.js';
import { taskCore, threadCore } from './core.js';

/**
 * Signals that are pending, with all that is known of each: PTRACE_PEEKSIGINFO, which leaves them queued. They are
 * put back by the task itself with rt_(tg)sigqueueinfo(2), since only to oneself one may send signals that claim to
 * come from the kernel or from others. All are blocked then, which also keeps those pending that would be ignored.
 */
function queueOf(signals: readonly Uint8Array[], pending: bigint): signal_queue_entry {
  let missing = pending;
  for (const siginfo of signals) missing &= ~signalBit(signoOf(siginfo));
  // A queue that was full keeps only the bit; the kernel then delivers the signal with an empty siginfo.
  const all = [...signals, ...signalsOf(missing).map(emptySiginfo)];
  return create(signal_queue_entrySchema, {
    signals: all.map((siginfo) => create(siginfo_entrySchema, { siginfo })),
  });
}

function signoOf(siginfo: Uint8Array): number {
  return new DataView(siginfo.buffer, siginfo.byteOffset).getInt32(SIGINFO_OFFSET_SIGNO, true);
}

function emptySiginfo(signal: number): Uint8Array {
  const siginfo = new Uint8Array(SIGINFO_SIZE);
  new DataView(siginfo.buffer).setInt32(SIGINFO_OFFSET_SIGNO, signal, true);
  return siginfo;
}

function checked(
  queue: signal_queue_entry | undefined,
  task: string,
): { signal: number; siginfo: Uint8Array }[] {
  return (queue?.signals ?? []).map(({ siginfo }) => {
    if (siginfo.length !== SIGINFO_SIZE)
      throw new Error(`${task}: a pending signal of ${siginfo.length} bytes`);
    const signal = signoOf(siginfo);
    if (signal < 1 || signal > 64) throw new Error(`${task}: a pending signal with number ${signal}`);
    return { signal, siginfo };
  });
}

/** Enough for what a restore can cause: SIGCHLD of helpers, SIGHUP and SIGCONT of groups, SIGTTOU, SIGWINCH. */
const FLUSHED = 6;

/** Take signals off the queue that the restore itself caused; none of the image's is there yet. */
function flush(tape: Tape): void {
  const every = tape.space(Uint8Array.from({ length: SIGSET_SIZE }, () => 0xff));
  const now = tape.space(16);
  for (let i = 0; i < FLUSHED; i++) tape.call('rt_sigtimedwait', [every, 0, now, SIGSET_SIZE], 'any');
}

export const sharedSignals: TaskState = {
  name: 'pending signals of processes',
  scope: 'process',
  support: 'standard and real-time signals sent to the process, in order, with siginfo',

  read({ core, tid, status }) {
    if (status.shdPnd !== 0n) taskCore(core).signalsS = queueOf(ptrace.peekSignals(tid, true), status.shdPnd);
  },

  note({ core }) {
    taskCore(core).signalsS ??= queueOf([], 0n);
  },

  restore(task, tape) {
    flush(tape);
    for (const { signal, siginfo } of checked(taskCore(task.leaderCore).signalsS, task.name)) {
      tape.about(`pending ${signalName(signal)}`);
      tape.call('rt_sigqueueinfo', [task.pid, signal, tape.space(siginfo)], 0);
    }
  },
};

export const threadSignals: TaskState = {
  name: 'pending signals of threads',
  scope: 'thread',
  support: 'standard and real-time signals sent to the thread, in order, with siginfo',

  read({ core, tid, status }) {
    if (status.sigPnd !== 0n)
      threadCore(core).signalsP = queueOf(ptrace.peekSignals(tid, false), status.sigPnd);
  },

  note({ core }) {
    threadCore(core).signalsP ??= queueOf([], 0n);
  },

  restore(task, tape) {
    for (const { signal, siginfo } of checked(threadCore(task.core).signalsP, task.name)) {
      tape.about(`pending ${signalName(signal)}`);
      tape.call('rt_tgsigqueueinfo', [task.pid, task.tid, signal, tape.space(siginfo)], 0);
    }
  },
};

/**
 * Signals that the last tape of a restored task must not end with: they are pending in its image, and a task that is
 * given one while it is not blocked stops in the middle of its tape.
 */
export function pendingIn(core: core_entry, leaderCore: core_entry): bigint {
  const queues = [core.threadCore?.signalsP, leaderCore.tc?.signalsS];
  return queues
    .flatMap((queue) => queue?.signals ?? [])
    .filter(({ siginfo }) => siginfo.length === SIGINFO_SIZE)
    .reduce((mask, { siginfo }) => mask | signalBit(signoOf(siginfo)), 0n);
}
