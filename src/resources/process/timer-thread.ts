import { type KernelMemory, kernelMemory } from '../../kernel/bpf/kernel-memory.js';
import type { Process, Thread } from '../contract.js';

/** Far more than a process may have without being refused. */
const TIMERS_MAX = 1000;

/**
 * Whose CPU time a timer on CLOCK_THREAD_CPUTIME_ID counts: that of the thread that made it, which only the kernel's own
 * memory says (include/linux/posix-timers.h struct k_itimer). Throws where it cannot be seen, or the thread has ended.
 */
export function timerThread(process: Process, id: number): Thread {
  const memory = kernelMemory();
  const { types } = memory;
  const signal = memory.pointer(memory.member(memory.task(process.pid), 'task_struct', 'signal'));
  let node = memory.pointer(memory.member(signal, 'signal_struct', 'posix_timers.first'));
  for (let count = 0; node !== 0n && count < TIMERS_MAX; count++) {
    const timer = node - BigInt(types.offset('k_itimer', 'list'));
    if (memory.read(memory.member(timer, 'k_itimer', 'it_id'), 4).readInt32LE(0) === id) {
      const tid = innermost(memory, memory.pointer(memory.member(timer, 'k_itimer', 'it.cpu.pid')));
      const thread = process.threads.find(({ insideTid }) => insideTid === tid);
      if (thread === undefined) throw new Error(`thread ${tid} has ended`);
      return thread;
    }
    node = memory.pointer(node);
  }
  throw new Error(`the kernel has no timer ${id} of it`);
}

/** The number of a struct pid in the namespace that is furthest inside. */
function innermost(memory: KernelMemory, pid: bigint): number {
  const level = memory.read(memory.member(pid, 'pid', 'level'), 4).readUInt32LE(0);
  const numbers = memory.member(pid, 'pid', 'numbers');
  return memory.read(numbers + BigInt(level * memory.types.size('upid')), 4).readInt32LE(0);
}
