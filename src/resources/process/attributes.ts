import { readFileSync, writeFileSync } from 'node:fs';
import { O_WRONLY } from '../../abi/fcntl.js';
import {
  PR_GET_CHILD_SUBREAPER,
  PR_GET_PDEATHSIG,
  PR_SET_CHILD_SUBREAPER,
  PR_SET_PDEATHSIG,
} from '../../abi/prctl.js';
import { readLoginuid, readOomScoreAdj } from '../../kernel/procfs/scalars.js';
import type { TaskState } from '../contract.js';
import { has, taskCore, threadCore } from './core.js';

/** PR_SET_CHILD_SUBREAPER */
export const childSubreaper: TaskState = {
  name: 'child subreaper',
  scope: 'process',
  support: 'the flag',
  urgent: true,

  ask(tape) {
    const flag = tape.space(4);
    tape.call('prctl', [PR_GET_CHILD_SUBREAPER, flag, 0, 0, 0], 0);
    return (played, thread) => {
      taskCore(thread.core).childSubreaper = played.view(flag).getInt32(0, true) !== 0;
    };
  },

  restore(task, tape) {
    if (taskCore(task.leaderCore).childSubreaper) tape.call('prctl', [PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0], 0);
  },
};

/** The signal for the death of the parent. A change of ids clears it, so it is set after the credentials. */
export const parentDeathSignal: TaskState = {
  name: 'parent death signal',
  scope: 'thread',
  support: 'PR_SET_PDEATHSIG',

  ask(tape) {
    const signal = tape.space(4);
    tape.call('prctl', [PR_GET_PDEATHSIG, signal, 0, 0, 0], 0);
    return (played, thread) => {
      const value = played.view(signal).getInt32(0, true);
      if (value !== 0) threadCore(thread.core).pdeathSig = value;
    };
  },

  kernel: { members: ['pdeath_signal'] },

  restore(task, tape) {
    const { pdeathSig } = threadCore(task.core);
    // The root is a stem, which dies with its parent until it is told otherwise.
    if (pdeathSig !== 0 || task.isLeader) tape.call('prctl', [PR_SET_PDEATHSIG, pdeathSig, 0, 0, 0], 0);
  },
};

/** How likely the OOM killer takes the process: only procfs has it, and the restorer writes it from outside. */
export const oomScore: TaskState = {
  name: 'OOM score adjustment',
  scope: 'process',
  support: 'oom_score_adj; going below the restorer’s own least value needs CAP_SYS_RESOURCE',

  read(thread) {
    taskCore(thread.core).oomScoreAdj = readOomScoreAdj(thread.process.pid);
  },

  settle(task, tid) {
    const core = taskCore(task.leaderCore);
    if (!has(core, 'oomScoreAdj') || readOomScoreAdj(tid) === core.oomScoreAdj) return;
    writeProc(
      task.name,
      tid,
      'oom_score_adj',
      String(core.oomScoreAdj),
      'lowering it takes CAP_SYS_RESOURCE',
    );
  },
};

export function writeProc(task: string, tid: number, file: string, text: string, help: string): void {
  try {
    writeFileSync(`/proc/${tid}/${file}`, text);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`${task}: ${file} cannot be set to ${text}: ${why}; ${help}`, { cause });
  }
}

const UNSET = 0xffff_ffff;

/** Audit's login id. A task can only write its own, so this is left out where it inherits the right one. */
export const loginuid: TaskState = {
  name: 'login uid',
  scope: 'process',
  support: 'as audit knows it, where the kernel has audit; restored through /proc of the process',

  read(thread) {
    const value = readLoginuid(thread.process.pid);
    if (value !== undefined) taskCore(thread.core).loginuid = value;
  },

  restore(task, tape) {
    const core = taskCore(task.leaderCore);
    if (!has(core, 'loginuid') || core.loginuid === ownLoginuid()) return;
    const text = Buffer.from(core.loginuid === UNSET ? '4294967295' : String(core.loginuid));
    const file = tape.call('openat', [-100, tape.string('/proc/self/loginuid'), O_WRONLY, 0]);
    tape.call('write', [file, tape.space(text), text.length], text.length);
    tape.call('close', [file], 0);
  },
};

function ownLoginuid(): number {
  try {
    return Number(readFileSync('/proc/self/loginuid', 'utf8'));
  } catch {
    return UNSET;
  }
}
