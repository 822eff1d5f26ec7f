import { create } from '@bufbuild/protobuf';
import { rlimit_entrySchema, task_rlimits_entrySchema } from '../../image/schema/index.js';
import { readLimits } from '../../kernel/procfs/limits.js';
import type { TaskState } from '../contract.js';
import { taskCore } from './core.js';

/**
 * Resource limits. /proc/PID/limits shows them without the privilege that prlimit(2) wants for another user's task.
 * A hard limit above the restorer's own takes CAP_SYS_RESOURCE.
 */
const NAMES = [
  'CPU', 'FSIZE', 'DATA', 'STACK', 'CORE', 'RSS', 'NPROC', 'NOFILE', 'MEMLOCK', 'AS', 'LOCKS', 'SIGPENDING',
  'MSGQUEUE', 'NICE', 'RTPRIO', 'RTTIME',
] as const; // biome-ignore format: in the order of their numbers

export const resourceLimits: TaskState = {
  name: 'resource limits',
  scope: 'process',
  support: 'soft and hard limits; raising a hard limit above the restorer’s own needs CAP_SYS_RESOURCE',

  read(thread) {
    const rlimits = readLimits(thread.process.pid).map((limit) => create(rlimit_entrySchema, limit));
    taskCore(thread.core).rlimits = create(task_rlimits_entrySchema, { rlimits });
  },

  restore(task, tape) {
    const limits = taskCore(task.leaderCore).rlimits?.rlimits ?? [];
    limits.forEach(({ cur, max }, resource) => {
      const bytes = new Uint8Array(16);
      const view = new DataView(bytes.buffer);
      view.setBigUint64(0, cur, true);
      view.setBigUint64(8, max, true);
      tape.about(
        `RLIMIT_${NAMES[resource] ?? resource}, hard limit ${max} (above the restorer’s own, it takes CAP_SYS_RESOURCE)`,
      );
      tape.call('prlimit64', [0, resource, tape.space(bytes), 0], 0);
    });
  },
};
