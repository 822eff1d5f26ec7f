import { create } from '@bufbuild/protobuf';
import {
  SS_AUTODISARM,
  SS_DISABLE,
  STACK_T_OFFSET_FLAGS,
  STACK_T_OFFSET_SIZE,
  STACK_T_OFFSET_SP,
  STACK_T_SIZE,
} from '../../abi/signal.js';
import { thread_sas_entrySchema } from '../../image/schema/index.js';
import type { TaskState } from '../contract.js';
import { threadCore } from './core.js';

/**
 * The alternate signal stack of a thread: sigaltstack(2). The kernel refuses a change while the stack pointer is on
 * it, so this has to be set before the thread gets its registers.
 */
export const alternateStack: TaskState = {
  name: 'alternate signal stacks',
  scope: 'thread',
  support: 'range and flags; also for a thread that is running a handler on it',

  ask(tape) {
    const stack = tape.space(STACK_T_SIZE);
    tape.call('sigaltstack', [0, stack], 0);
    return (played, thread) => {
      const view = played.view(stack);
      threadCore(thread.core).sas = create(thread_sas_entrySchema, {
        ssSp: view.getBigUint64(STACK_T_OFFSET_SP, true),
        ssSize: view.getBigUint64(STACK_T_OFFSET_SIZE, true),
        ssFlags: view.getUint32(STACK_T_OFFSET_FLAGS, true),
      });
    };
  },

  kernel: {
    members: ['sas_ss_sp', 'sas_ss_size', 'sas_ss_flags'],
    // As sigaltstack(2) says it of a thread that is not on it (kernel/signal.c do_sigaltstack).
    read([ssSp = 0n, ssSize = 0n, flags = 0n], { core }) {
      const ssFlags = (Number(flags) & SS_AUTODISARM) | (ssSize === 0n ? SS_DISABLE : 0);
      threadCore(core).sas = create(thread_sas_entrySchema, { ssSp, ssSize, ssFlags: ssFlags >>> 0 });
    },
  },

  restore(task, tape) {
    const { sas } = threadCore(task.core);
    if (sas === undefined || (sas.ssFlags & SS_DISABLE) !== 0) return;
    const bytes = new Uint8Array(STACK_T_SIZE);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(STACK_T_OFFSET_SP, sas.ssSp, true);
    view.setBigUint64(STACK_T_OFFSET_SIZE, sas.ssSize, true);
    view.setUint32(STACK_T_OFFSET_FLAGS, sas.ssFlags, true);
    tape.call('sigaltstack', [tape.space(bytes), 0], 0);
  },
};
