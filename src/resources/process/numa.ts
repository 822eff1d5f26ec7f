import { nameOf, type TaskState } from '../contract.js';
import { extrasFor, extrasOf } from './extras.js';

/** The memory policy of a thread: get_mempolicy(2), set_mempolicy(2). */

/** Bits of the node mask; the kernel wants at least as many as it was built for (CONFIG_NODES_SHIFT, at most 10). */
const NODES = 1024;
const MPOL_DEFAULT = 0;

export const memoryPolicy: TaskState = {
  name: 'NUMA memory policy',
  scope: 'thread',
  support: 'mode and nodes of threads; kept by Stasis only',

  ask(tape) {
    const mode = tape.space(4);
    const nodes = tape.space(NODES / 8);
    const answer = tape.call('get_mempolicy', [mode, nodes, NODES, 0, 0], 'any');
    return (played, thread, context) => {
      // ENOSYS: a kernel without NUMA has no policies.
      if (played.result(answer) !== 0n) return;
      const value = played.view(mode).getInt32(0, true);
      if (value === MPOL_DEFAULT) return;
      const extras = extrasOf(context, thread.insideTid);
      extras.numa_mode = value;
      const hex = Buffer.from(played.read(nodes)).reverse().toString('hex');
      extras.numa_nodes = hex.replace(/^0+(?=.)/, '');
      if (value < 0) throw new Error(`${nameOf(thread)}: memory policy ${value}`);
    };
  },

  kernel: { members: ['mempolicy'] },

  restore(task, tape) {
    const extras = extrasFor(task.reader, task.tid);
    if (extras?.numa_mode === undefined) return;
    const hex = (extras.numa_nodes ?? '0').padStart(NODES / 4, '0').slice(-NODES / 4);
    const nodes = Uint8Array.from(Buffer.from(hex, 'hex').reverse());
    tape.call('set_mempolicy', [extras.numa_mode, tape.space(nodes), NODES], 0);
  },
};
