import { P_PID, WNOHANG, WUNTRACED } from '../../abi/process.js';
import type { TaskState } from '../contract.js';
import { extrasFor, extrasOf } from './extras.js';

/**
 * Children that are stopped: their parent is told of it by one wait(2). Until then /proc/PID/stat has the signal as their exit
 * code (fs/proc/array.c do_task_stat). Those it has heard of are waited for once more when they have been stopped again.
 */
export const stopReports: TaskState = {
  name: 'stops of children',
  scope: 'process',
  support: 'whether the parent has waited for them (waitid(2) WSTOPPED)',

  read({ process, insideTid }, context) {
    const reported = process.children.filter(
      ({ state, stat }) => state === 'stopped' && stat.exit_code === 0,
    );
    if (reported.length > 0)
      extrasOf(context, insideTid).reported_stops = reported.map(({ insidePid }) => insidePid);
  },

  restore(task, tape) {
    for (const pid of extrasFor(task.reader, task.pid)?.reported_stops ?? [])
      tape.call('waitid', [P_PID, pid, 0, WUNTRACED | WNOHANG, 0], 'any');
  },
};
