import { MEMBARRIER_CMD_GET_REGISTRATIONS } from '../../abi/process.js';
import type { TaskState } from '../contract.js';
import { taskCore } from './core.js';

/** Which expedited barriers a process registered for: membarrier(2), readable since Linux 6.3. */
export const membarrier: TaskState = {
  name: 'membarrier registrations',
  scope: 'process',
  support: 'all of them, on Linux 6.3 and later',

  ask(tape) {
    const answer = tape.call('membarrier', [MEMBARRIER_CMD_GET_REGISTRATIONS, 0, 0], 'any');
    return (played, thread) => {
      const mask = played.result(answer);
      if (mask > 0n) taskCore(thread.core).membarrierRegistrationMask = Number(mask);
    };
  },

  restore(task, tape) {
    const mask = taskCore(task.leaderCore).membarrierRegistrationMask;
    for (let command = 1; command <= mask; command <<= 1)
      if ((mask & command) !== 0) tape.call('membarrier', [command, 0, 0], 0);
  },
};
