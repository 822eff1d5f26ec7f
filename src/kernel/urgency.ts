import { SCHED_FIFO, SCHED_NORMAL, SCHED_RESET_ON_FORK } from '../abi/process.js';
import { scratch } from './memory.js';
import { attempt } from './syscall.js';

const LOWEST = 1;

/**
 * While somebody stands still until this thread is done, it goes before all that has no deadlines: at the lowest priority of
 * real-time threads, and as before when the scope ends. (A nice value means nothing to other sessions, which are groups of
 * their own: sched(7), "The autogroup feature".) Its children are as other tasks. Without CAP_SYS_NICE nothing changes.
 */
export class Urgency implements Disposable {
  #isUrgent =
    attempt('sched_getscheduler', [0]) === SCHED_NORMAL && schedule(SCHED_FIFO | SCHED_RESET_ON_FORK, LOWEST);

  [Symbol.dispose](): void {
    if (this.#isUrgent) schedule(SCHED_NORMAL, 0);
    this.#isUrgent = false;
  }
}

/** Of the calling thread. */
function schedule(policy: number, priority: number): boolean {
  scratch.view.setInt32(0, priority, true);
  return attempt('sched_setscheduler', [0, policy, scratch.address]) >= 0;
}
