import { NativeMemory } from '../kernel/memory.js';
import { unlessVanished } from '../kernel/procfs/error.js';
import { readSyscall } from '../kernel/procfs/scalars.js';
import { readSched, type SchedulerNotes } from '../kernel/procfs/sched.js';
import { readStat } from '../kernel/procfs/stat.js';
import { attempt, sleep_us } from '../kernel/syscall.js';
import { callMadeAgain, hasTimeout } from '../resources/process/index.js';
import type { Sighting } from './look.js';

/**
 * When waits of relative length began: asked of sleeping threads before they are stopped, because a stop ends the sleep.
 * The kernel does not say it outright. The scheduler's notes on a thread (CONFIG_SCHED_DEBUG) tell when it went to
 * sleep by the task clock of the CPU it was on; by the same clock it is asked how long ago that is. All that is inexact
 * makes a wait look shorter than it was, so that nobody is woken early.
 */
export interface WaitNotes {
  /** CLOCK_MONOTONIC in nanoseconds, at the latest; undefined where it is not known. */
  readonly began_ns: bigint | undefined;
  /** As Status.voluntarySwitches, while it sleeps. */
  readonly sleeps: number;
  /** The call that is made again, where the registers say restart_syscall. */
  readonly call: number | undefined;
}

export function noteWaits(threads: readonly Sighting[]): Map<number, WaitNotes> {
  const notes = new Map<number, WaitNotes>();
  const clocks = new CpuClocks();
  try {
    for (const thread of threads) {
      const note = thread.state === SLEEPING ? unlessVanished(() => noteWait(thread, clocks)) : undefined;
      if (note !== undefined) notes.set(thread.tid, note);
    }
  } finally {
    clocks.end();
  }
  return notes;
}

const SLEEPING = 'S';

function noteWait({ pid, tid }: Sighting, clocks: CpuClocks): WaitNotes | undefined {
  const current = readSyscall(pid, { tid });
  if (!hasTimeout(current)) return undefined;
  const call = callMadeAgain(pid, tid, current);
  const first = readSched(pid, { tid });
  if (first === undefined) return call === undefined ? undefined : { began_ns: undefined, sleeps: -1, call };
  const { processor } = readStat(pid, { tid });
  // The two numbers are not read at once: if it slept no more in between, the second time they belong together.
  const notes = readSched(pid, { tid });
  if (notes === undefined || notes.sleeps !== first.sleeps) return undefined;
  return { began_ns: clocks.when_ns(processor, notes), sleeps: notes.sleeps, call };
}

/**
 * How long a thread that is stopped now, having been told so at `stop_ns` at the earliest, had been in its wait: the
 * stop itself is a sleep more. Undefined where it is not known to be the wait that was noted. (One that ended just
 * before the stop, followed by the same call again, which the stop met in the microsecond before it slept, looks no
 * different.)
 */
export function elapsed_ns(
  notes: WaitNotes | undefined,
  voluntarySwitches: number,
  stop_ns: bigint,
): bigint | undefined {
  if (notes?.began_ns === undefined || voluntarySwitches !== notes.sleeps + 1) return undefined;
  return stop_ns > notes.began_ns ? stop_ns - notes.began_ns : 0n;
}

export const monotonic_ns = (): bigint => process.hrtime.bigint();

/** One in so many nanoseconds is not counted: the scheduler's clock is not steered as CLOCK_MONOTONIC is (by 500 ppm). */
const CLOCK_ERROR = 1000n;
const CPU_SET_SIZE = 1024;

interface Reading {
  readonly task_ns: bigint;
  readonly monotonic_ns: bigint;
}

/** Longer than it takes to go to sleep. */
const GIVEN_UP_US = 20;

/** The task clocks of CPUs, read by being there for a moment. */
class CpuClocks {
  readonly #read = new Map<number, Reading | undefined>();
  #memory: NativeMemory | undefined;
  /** Length of our own CPU set, which is kept behind the one that is asked for. */
  #own = 0;

  when_ns(cpu: number, { lastRun_ns }: SchedulerNotes): bigint | undefined {
    if (!this.#read.has(cpu)) this.#read.set(cpu, this.#visit(cpu));
    const reading = this.#read.get(cpu);
    // A thread that is just being moved has none.
    if (reading === undefined || lastRun_ns === 0n) return undefined;
    // It may have gone to sleep after the clock was read.
    const ago_ns = reading.task_ns - lastRun_ns;
    return ago_ns < 0n ? undefined : reading.monotonic_ns - (ago_ns - ago_ns / CLOCK_ERROR);
  }

  #visit(cpu: number): Reading | undefined {
    if (cpu >= CPU_SET_SIZE * 8) return undefined;
    const memory = this.#room();
    if (this.#own <= 0) return undefined;
    memory.bytes.fill(0, 0, CPU_SET_SIZE);
    memory.bytes[cpu >> 3] = 1 << (cpu & 7);
    if (attempt('sched_setaffinity', [0, CPU_SET_SIZE, memory.address]) < 0) return undefined;
    // Who is given the processor anew has a new time of its last run (sched_yield(2) does that only without a real-time priority).
    sleep_us(GIVEN_UP_US);
    const task_ns = readSched(process.pid, { tid: attempt('gettid', []) })?.lastRun_ns;
    return task_ns === undefined ? undefined : { task_ns, monotonic_ns: monotonic_ns() };
  }

  #room(): NativeMemory {
    if (this.#memory === undefined) {
      this.#memory = new NativeMemory(2 * CPU_SET_SIZE);
      const own = this.#memory.address + BigInt(CPU_SET_SIZE);
      this.#own = attempt('sched_getaffinity', [0, CPU_SET_SIZE, own]);
    }
    return this.#memory;
  }

  /** Back to where we may run by right. */
  end(): void {
    if (this.#memory === undefined) return;
    if (this.#own > 0)
      attempt('sched_setaffinity', [0, this.#own, this.#memory.address + BigInt(CPU_SET_SIZE)]);
    this.#memory[Symbol.dispose]();
    this.#memory = undefined;
  }
}
