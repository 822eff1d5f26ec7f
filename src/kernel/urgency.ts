import { PRIO_PROCESS } from '../abi/process.js';
import { attempt } from './syscall.js';

const HIGHEST = -20;

/**
 * While somebody stands still until this thread is done, it goes before others: at the highest priority that setpriority(2)
 * has (of a thread, on Linux), and as before when the scope ends. Without CAP_SYS_NICE nothing changes.
 */
export class Urgency implements Disposable {
  #nice: number | undefined;

  constructor() {
    // getpriority(2) answers 20 − nice.
    const nice = 20 - attempt('getpriority', [PRIO_PROCESS, 0]);
    if (attempt('setpriority', [PRIO_PROCESS, 0, HIGHEST]) >= 0) this.#nice = nice;
  }

  [Symbol.dispose](): void {
    if (this.#nice !== undefined) attempt('setpriority', [PRIO_PROCESS, 0, this.#nice]);
    this.#nice = undefined;
  }
}
