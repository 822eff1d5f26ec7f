import { create } from '@bufbuild/protobuf';
import {
  SIGACTION_OFFSET_FLAGS,
  SIGACTION_OFFSET_HANDLER,
  SIGACTION_OFFSET_MASK,
  SIGACTION_OFFSET_RESTORER,
  SIGACTION_SIZE,
  SIGKILL,
  SIGRTMAX,
  SIGSET_SIZE,
  SIGSTOP,
  signalName,
} from '../../abi/signal.js';
import { type core_entry, type sa_entry, sa_entrySchema } from '../../image/schema/index.js';
import type { TaskState } from '../contract.js';
import { taskCore } from './core.js';

/**
 * What a process does on each signal: rt_sigaction(2), in the process's own view. The image has 62 entries, for
 * signals 1 to 64 without SIGKILL and SIGSTOP, which nobody can change.
 */
export const ACTION_SIGNALS: readonly number[] = Array.from({ length: SIGRTMAX }, (_, i) => i + 1).filter(
  (signal) => signal !== SIGKILL && signal !== SIGSTOP,
);

const SIG_DFL = 0n;
const SIG_IGN = 1n;
/** SIGCHLD, SIGCONT, SIGURG and SIGWINCH: by default nothing happens. */
const IGNORED_BY_DEFAULT: readonly number[] = [17, 18, 23, 28];

/**
 * Signals, as a mask, that are ignored: rt_sigaction(2) throws away those that are pending in any thread when their
 * action becomes that, or is set to that again (kernel/signal.c do_sigaction).
 */
export function ignoredIn(leaderCore: core_entry): bigint {
  let ignored = 0n;
  taskCore(leaderCore).sigactions.forEach(({ sigaction }, index) => {
    const signal = ACTION_SIGNALS[index] ?? 0;
    const isIgnored = sigaction === SIG_IGN || (sigaction === SIG_DFL && IGNORED_BY_DEFAULT.includes(signal));
    if (isIgnored) ignored |= 1n << BigInt(signal - 1);
  });
  return ignored;
}

function decode(view: DataView): sa_entry {
  return create(sa_entrySchema, {
    sigaction: view.getBigUint64(SIGACTION_OFFSET_HANDLER, true),
    flags: view.getBigUint64(SIGACTION_OFFSET_FLAGS, true),
    restorer: view.getBigUint64(SIGACTION_OFFSET_RESTORER, true),
    mask: view.getBigUint64(SIGACTION_OFFSET_MASK, true),
    compatSigaction: false,
  });
}

function encode(entry: sa_entry): Uint8Array {
  const bytes = new Uint8Array(SIGACTION_SIZE);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(SIGACTION_OFFSET_HANDLER, entry.sigaction, true);
  view.setBigUint64(SIGACTION_OFFSET_FLAGS, entry.flags, true);
  view.setBigUint64(SIGACTION_OFFSET_RESTORER, entry.restorer, true);
  view.setBigUint64(SIGACTION_OFFSET_MASK, entry.mask, true);
  return bytes;
}

export const signalActions: TaskState = {
  name: 'signal actions',
  scope: 'process',
  support: 'handler, flags, restorer and mask of every signal',

  ask(tape) {
    const answers = ACTION_SIGNALS.map((signal) => {
      const action = tape.space(SIGACTION_SIZE);
      tape.call('rt_sigaction', [signal, 0, action, SIGSET_SIZE], 0);
      return action;
    });
    return (played, thread) => {
      taskCore(thread.core).sigactions = answers.map((action) => decode(played.view(action)));
    };
  },

  restore(task, tape) {
    const { sigactions } = taskCore(task.leaderCore);
    if (sigactions.length === 0) return;
    if (sigactions.length !== ACTION_SIGNALS.length)
      throw new Error(`${task.name}: the image has ${sigactions.length} signal actions instead of 62`);
    ACTION_SIGNALS.forEach((signal, index) => {
      const entry = sigactions[index];
      if (entry === undefined) return;
      if (entry.compatSigaction)
        throw new Error(`${task.name}: the action of ${signalName(signal)} is a 32-bit one`);
      tape.call('rt_sigaction', [signal, tape.space(encode(entry)), 0, SIGSET_SIZE], 0);
    });
  },
};
