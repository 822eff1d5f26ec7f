import { PR_GET_TID_ADDRESS } from '../../abi/prctl.js';
import type { TaskState } from '../contract.js';
import { answerOf } from './answers.js';
import { threadCore } from './core.js';

/** What the kernel does when a thread ends: it walks the list of robust futexes, and clears a word. */

/** sizeof(struct robust_list_head), the only length the kernel takes. */
const ROBUST_LIST_HEAD_SIZE = 24;

export const robustList: TaskState = {
  name: 'robust futex lists',
  scope: 'thread',
  support: 'the head, get_robust_list(2)',

  inquiry: {
    room: 16,
    put(ask, { tid }, at) {
      ask('get_robust_list', tid, at, at + 8);
    },
    read({ results, view }, thread) {
      answerOf('get_robust_list', results[0], thread);
      const core = threadCore(thread.core);
      core.futexRla = view.getBigUint64(0, true);
      core.futexRlaLen = core.futexRla === 0n ? 0 : Number(view.getBigUint64(8, true));
    },
  },

  restore(task, tape) {
    const { futexRla, futexRlaLen } = threadCore(task.core);
    if (futexRla === 0n) return;
    tape.call('set_robust_list', [futexRla, futexRlaLen === 0 ? ROBUST_LIST_HEAD_SIZE : futexRlaLen], 0);
  },
};

export const tidAddress: TaskState = {
  name: 'clear_child_tid addresses',
  scope: 'thread',
  support: 'the address, PR_GET_TID_ADDRESS',

  ask(tape) {
    const address = tape.space(8);
    tape.call('prctl', [PR_GET_TID_ADDRESS, address, 0, 0, 0], 0);
    return (played, thread) => {
      const info = thread.core.threadInfo;
      if (info !== undefined) info.clearTidAddr = played.view(address).getBigUint64(0, true);
    };
  },

  kernel: {
    members: ['clear_child_tid'],
    read([address = 0n], { core }) {
      if (core.threadInfo !== undefined) core.threadInfo.clearTidAddr = address;
    },
  },

  restore(task, tape) {
    tape.call('set_tid_address', [task.core.threadInfo?.clearTidAddr ?? 0n]);
  },
};
