import { ProcfsError, unlessVanished } from './error.js';
import { readText, taskPath, type Where } from './read.js';

/** What the scheduler says of a thread: kernel/sched/debug.c proc_sched_show_task. */
export interface SchedulerNotes {
  /**
   * When it was last seen running, in nanoseconds of its CPU's task clock: of a thread that sleeps, when it went to
   * sleep. The clocks of two CPUs are not comparable, and either is slower than real time by what interrupts and
   * other guests took.
   */
  readonly lastRun_ns: bigint;
  /** How often it went to sleep by itself, the sleep it is in among them. */
  readonly sleeps: number;
}

export function parseSched(text: string, path = '/proc/PID/sched'): SchedulerNotes {
  const run = /^se\.exec_start\s*:\s*(\d+)\.(\d{6})$/m.exec(text);
  const sleeps = /^nr_voluntary_switches\s*:\s*(\d+)$/m.exec(text);
  if (run === null || sleeps === null)
    throw new ProcfsError(path, '', 'no se.exec_start, or no nr_voluntary_switches');
  return { lastRun_ns: BigInt(`${run[1]}${run[2]}`), sleeps: Number(sleeps[1]) };
}

/** Undefined on a kernel without CONFIG_SCHED_DEBUG, and of a thread that has ended. */
export function readSched(pid: number, where: Where = {}): SchedulerNotes | undefined {
  const path = taskPath(pid, 'sched', where);
  return unlessVanished(() => parseSched(readText(path), path));
}
