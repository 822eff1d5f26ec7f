import {
  PR_GET_IO_FLUSHER,
  PR_GET_MDWE,
  PR_GET_MEMORY_MERGE,
  PR_GET_SPECULATION_CTRL,
  PR_GET_TIMERSLACK,
  PR_GET_TSC,
  PR_MCE_KILL,
  PR_MCE_KILL_DEFAULT,
  PR_MCE_KILL_GET,
  PR_MCE_KILL_SET,
  PR_SET_IO_FLUSHER,
  PR_SET_MDWE,
  PR_SET_MEMORY_MERGE,
  PR_SET_SPECULATION_CTRL,
  PR_SET_TIMERSLACK,
  PR_SET_TSC,
  PR_SPEC_ENABLE,
  PR_SPEC_FORCE_DISABLE,
  PR_SPEC_INDIRECT_BRANCH,
  PR_SPEC_L1D_FLUSH,
  PR_SPEC_NOT_AFFECTED,
  PR_SPEC_PRCTL,
  PR_SPEC_STORE_BYPASS,
  PR_TSC_ENABLE,
} from '../../abi/prctl.js';
import { IOPRIO_CLASS_NONE, IOPRIO_CLASS_SHIFT, IOPRIO_WHO_PROCESS } from '../../abi/process.js';
import { readCoredumpFilter } from '../../kernel/procfs/scalars.js';
import type { TaskState } from '../contract.js';
import { answerOf } from './answers.js';
import { writeProc } from './attributes.js';
import { extrasFor, extrasOf, writeExtras } from './extras.js';
import { hasRestartBlock, restartCode } from './interrupted.js';
import { extraComponents } from './xstate.js';

/**
 * Small switches that CRIU's format has no field for: each thread's own first, then those of the process. What reads
 * as the default is not written.
 */

/** Nanoseconds (kernel/fork.c, init/init_task.c). */
const TIMER_SLACK_DEFAULT = 50_000;
const SPECULATIONS = [PR_SPEC_STORE_BYPASS, PR_SPEC_INDIRECT_BRANCH, PR_SPEC_L1D_FLUSH];

export const ioPriority: TaskState = {
  name: 'I/O priority and timer slack',
  scope: 'thread',
  support: 'kept by Stasis only',

  inquiry: {
    room: 0,
    put(ask, { tid }) {
      ask('ioprio_get', IOPRIO_WHO_PROCESS, tid);
    },
    read({ results: [result] }, thread, context) {
      const priority = answerOf('ioprio_get', result, thread);
      if (priority >> IOPRIO_CLASS_SHIFT !== IOPRIO_CLASS_NONE)
        extrasOf(context, thread.insideTid).ioprio = priority;
    },
  },

  ask(tape) {
    const slack = tape.call('prctl', [PR_GET_TIMERSLACK, 0, 0, 0, 0]);
    return (played, thread, context) => {
      const nanoseconds = Number(played.result(slack));
      // 0 is what realtime tasks show, whose own value cannot be seen.
      if (nanoseconds !== 0 && nanoseconds !== TIMER_SLACK_DEFAULT)
        extrasOf(context, thread.insideTid).timer_slack = nanoseconds;
    };
  },

  kernel: { members: ['timer_slack_ns', 'policy'] },

  restore(task, tape) {
    const extras = extrasFor(task.reader, task.tid);
    if (extras?.ioprio !== undefined) tape.call('ioprio_set', [IOPRIO_WHO_PROCESS, 0, extras.ioprio], 0);
    if (extras?.timer_slack !== undefined)
      tape.call('prctl', [PR_SET_TIMERSLACK, extras.timer_slack, 0, 0, 0], 0);
  },
};

export const threadSwitches: TaskState = {
  name: 'switches of threads',
  scope: 'thread',
  support: 'speculation control, machine-check policy, PR_SET_IO_FLUSHER, PR_SET_TSC; kept by Stasis only',

  ask(tape) {
    const tsc = tape.space(4);
    const speculation = SPECULATIONS.map((which) =>
      tape.call('prctl', [PR_GET_SPECULATION_CTRL, which, 0, 0, 0], 'any'),
    );
    const machineCheck = tape.call('prctl', [PR_MCE_KILL_GET, 0, 0, 0, 0], 'any');
    const flusher = tape.call('prctl', [PR_GET_IO_FLUSHER, 0, 0, 0, 0], 'any');
    tape.call('prctl', [PR_GET_TSC, tsc, 0, 0, 0], 'any');
    return (played, thread, context) => {
      const extras = extrasOf(context, thread.insideTid);
      const modes = speculation.map((result) =>
        Math.max(Number(played.result(result)), PR_SPEC_NOT_AFFECTED),
      );
      if (modes.some(isChanged)) extras.speculation = modes;
      const policy = Number(played.result(machineCheck));
      if (policy >= 0 && policy !== PR_MCE_KILL_DEFAULT) extras.mce_kill = policy;
      if (played.result(flusher) === 1n) extras.io_flusher = 1;
      const mode = played.view(tsc).getInt32(0, true);
      if (mode !== 0 && mode !== PR_TSC_ENABLE) extras.tsc = mode;
    };
  },

  // PFA_SPEC_*; PF_MCE_*, PF_MEMALLOC_NOIO, PF_LOCAL_THROTTLE; TIF_NOTSC, TIF_SSBD, TIF_SPEC_*.
  kernel: { members: ['atomic_flags', 'flags', 'thread_info.flags'] },

  restore(task, tape) {
    const extras = extrasFor(task.reader, task.tid);
    extras?.speculation?.forEach((mode, which) => {
      // A processor that is not affected refuses; nothing is lost.
      if (isChanged(mode)) tape.call('prctl', [PR_SET_SPECULATION_CTRL, which, disabling(mode), 0, 0], 'any');
    });
    if (extras?.mce_kill !== undefined)
      tape.call('prctl', [PR_MCE_KILL, PR_MCE_KILL_SET, extras.mce_kill, 0, 0], 0);
    if (extras?.io_flusher === 1) tape.call('prctl', [PR_SET_IO_FLUSHER, 1, 0, 0, 0], 0);
    if (extras?.tsc !== undefined) tape.call('prctl', [PR_SET_TSC, extras.tsc, 0, 0, 0], 0);
  },
};

/** A mitigation that can be chosen per task, and is on. */
function isChanged(mode: number): boolean {
  return (mode & PR_SPEC_PRCTL) !== 0 && (mode & PR_SPEC_ENABLE) === 0;
}

function disabling(mode: number): number {
  return (mode & PR_SPEC_FORCE_DISABLE) !== 0 ? PR_SPEC_FORCE_DISABLE : mode & ~PR_SPEC_PRCTL;
}

/** Interrupted calls, registers without a field, accounting: nothing of it has a tape. Writes the whole file. */
export const taskExtras: TaskState = {
  name: 'accounting and further registers',
  scope: 'thread',
  support:
    'times and faults are kept in the image; AMX and other new register state is restored; kept by Stasis only',

  note(thread, context) {
    const { frozen, process } = thread;
    const extras = extrasOf(context, thread.insideTid);
    if (frozen !== undefined) {
      const code = restartCode(frozen.registers);
      if (code !== undefined) extras.restart = code;
      const { remaining_ns } = frozen;
      if (remaining_ns !== undefined && hasRestartBlock(frozen.registers))
        extras.remaining = `${remaining_ns}`;
      const components = extraComponents(frozen.xstate);
      if (components.size > 0) extras.xstate = components;
    }
    if (!thread.isLeader) return;
    const { utime, stime, cutime, cstime, starttime: start, minflt, majflt } = process.stat;
    extras.accounting = { utime, stime, cutime, cstime, start, minflt, majflt };
  },

  write: writeExtras,
};

export const coredumpFilter: TaskState = {
  name: 'core dump filter',
  scope: 'process',
  support: 'kept by Stasis only',

  read(thread, context) {
    const filter = readCoredumpFilter(thread.process.pid);
    if (filter !== undefined) extrasOf(context, thread.insideTid).coredump_filter = filter;
  },

  settle(task, tid) {
    const filter = extrasFor(task.reader, task.tid)?.coredump_filter;
    if (filter === undefined || readCoredumpFilter(tid) === filter) return;
    writeProc(
      task.name,
      tid,
      'coredump_filter',
      `0x${filter.toString(16)}`,
      'the kernel takes it for tasks with memory',
    );
  },
};

export const processSwitches: TaskState = {
  name: 'switches of processes',
  scope: 'process',
  support: 'PR_SET_MDWE, PR_SET_MEMORY_MERGE; kept by Stasis only',

  ask(tape) {
    const mdwe = tape.call('prctl', [PR_GET_MDWE, 0, 0, 0, 0], 'any');
    const merge = tape.call('prctl', [PR_GET_MEMORY_MERGE, 0, 0, 0, 0], 'any');
    return (played, thread, context) => {
      const extras = extrasOf(context, thread.insideTid);
      if (played.result(mdwe) > 0n) extras.mdwe = Number(played.result(mdwe));
      if (played.result(merge) > 0n) extras.memory_merge = Number(played.result(merge));
    };
  },

  restore(task, tape) {
    const extras = extrasFor(task.reader, task.tid);
    if (extras?.mdwe !== undefined) tape.call('prctl', [PR_SET_MDWE, extras.mdwe, 0, 0, 0], 0);
    if (extras?.memory_merge !== undefined) tape.call('prctl', [PR_SET_MEMORY_MERGE, 1, 0, 0, 0], 0);
  },
};
