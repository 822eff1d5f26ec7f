import { PR_SET_NAME } from '../../abi/prctl.js';
import { encodeBytes } from '../../kernel/procfs/bytes.js';
import { readPersonality } from '../../kernel/procfs/scalars.js';
import type { TaskState } from '../contract.js';
import { has, taskCore, threadCore } from './core.js';

/** TASK_COMM_LEN − 1 */
const NAME_MAX = 15;

export const names: TaskState = {
  name: 'names of threads',
  scope: 'thread',
  support: 'as /proc/PID/comm shows them',

  note(thread) {
    threadCore(thread.core).comm = thread.status.name;
    if (thread.isLeader) taskCore(thread.core).comm = thread.status.name;
  },

  restore(task, tape) {
    const core = threadCore(task.core);
    const name = has(core, 'comm') ? core.comm : (task.core.tc?.comm ?? task.leaderCore.tc?.comm ?? '');
    tape.call('prctl', [PR_SET_NAME, tape.string(encodeBytes(name).subarray(0, NAME_MAX)), 0, 0, 0], 0);
  },
};

/** Execution domain: personality(2). */
export const personality: TaskState = {
  name: 'personality',
  scope: 'process',
  support: 'the whole word, ADDR_NO_RANDOMIZE and the like',

  read(thread) {
    taskCore(thread.core).personality = readPersonality(thread.process.pid);
  },

  restore(task, tape) {
    tape.call('personality', [taskCore(task.leaderCore).personality]);
  },
};
