import { create } from '@bufbuild/protobuf';
import { ITIMER_PROF, ITIMER_REAL, ITIMER_VIRTUAL } from '../../abi/process.js';
import type { core_entry } from '../../image/schema/index.js';
import {
  type itimer_entry,
  itimer_entrySchema,
  type task_timers_entry,
  task_timers_entrySchema,
} from '../../image/schema/index.js';
import type { TaskState } from '../contract.js';
import { taskCore } from './core.js';

/** The three interval timers of a process: getitimer(2), setitimer(2). */

/** struct itimerval: interval and value, seconds and microseconds each. */
const ITIMERVAL_SIZE = 32;
const TIMERS = [
  ['real', ITIMER_REAL],
  ['virt', ITIMER_VIRTUAL],
  ['prof', ITIMER_PROF],
] as const;

function decode(view: DataView): itimer_entry {
  return create(itimer_entrySchema, {
    isec: view.getBigUint64(0, true),
    iusec: view.getBigUint64(8, true),
    vsec: view.getBigUint64(16, true),
    vusec: view.getBigUint64(24, true),
  });
}

function encode(entry: itimer_entry): Uint8Array {
  const bytes = new Uint8Array(ITIMERVAL_SIZE);
  const view = new DataView(bytes.buffer);
  [entry.isec, entry.iusec, entry.vsec, entry.vusec].forEach((value, index) => {
    view.setBigUint64(index * 8, value, true);
  });
  return bytes;
}

/**
 * A periodic real timer whose SIGALRM is pending is started again by the kernel when that is delivered
 * (kernel/time/itimer.c posixtimer_rearm_itimer), and reads as stopped until then. A restored SIGALRM does not start
 * it, so it is given one period.
 */
function rearmed(entry: itimer_entry): itimer_entry {
  const isStopped = entry.vsec === 0n && entry.vusec === 0n;
  return isStopped ? create(itimer_entrySchema, { ...entry, vsec: entry.isec, vusec: entry.iusec }) : entry;
}

/** The timers of a leader's core, made where there are none yet. */
export function timersOf(core: core_entry): task_timers_entry {
  const task = taskCore(core);
  const zero = () => create(itimer_entrySchema, { isec: 0n, iusec: 0n, vsec: 0n, vusec: 0n });
  task.timers ??= create(task_timers_entrySchema, { real: zero(), virt: zero(), prof: zero() });
  return task.timers;
}

export const intervalTimers: TaskState = {
  name: 'interval timers',
  scope: 'process',
  support: 'real, virtual and profiling timers: remaining time and period',

  ask(tape) {
    const answers = TIMERS.map(([field, which]) => {
      const value = tape.space(ITIMERVAL_SIZE);
      tape.call('getitimer', [which, value], 0);
      return { field, value };
    });
    return (played, thread) => {
      const timers = timersOf(thread.core);
      for (const { field, value } of answers) timers[field] = decode(played.view(value));
      if (timers.real !== undefined) timers.real = rearmed(timers.real);
    };
  },

  restore(task, tape) {
    const { timers } = taskCore(task.leaderCore);
    for (const [field, which] of TIMERS) {
      const saved = timers?.[field];
      if (saved === undefined) continue;
      // CRIU saves what it reads. No timer that nobody will start again keeps its period.
      const entry = rearmed(saved);
      if (entry.vsec === 0n && entry.vusec === 0n) continue;
      tape.call('setitimer', [which, tape.space(encode(entry)), 0], 0);
    }
  },
};
