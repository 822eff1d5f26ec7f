import { create } from '@bufbuild/protobuf';
import {
  type core_entry,
  core_entrySchema,
  type task_core_entry,
  task_core_entrySchema,
  type thread_core_entry,
  thread_core_entrySchema,
} from '../../image/schema/index.js';
import type { Process } from '../contract.js';

/** The image of a thread, core-TID.img: what every one of them holds, before the states fill in theirs. */

/** core_entry.march */
const X86_64 = 1;
/** task_core_entry.task_state */
export const TASK_ALIVE = 1;
export const TASK_DEAD = 2;
export const TASK_STOPPED = 3;

const STATE = { alive: TASK_ALIVE, zombie: TASK_DEAD, stopped: TASK_STOPPED } as const;

/**
 * A core with all required fields. `process` needs no threads yet; the leader's core carries the process's part, and
 * a zombie has nothing else.
 */
export function newCore(process: Process, isLeader: boolean): core_entry {
  const core = create(core_entrySchema, { mtype: X86_64 });
  const isZombie = process.state === 'zombie';
  if (isLeader) {
    core.tc = create(task_core_entrySchema, {
      taskState: STATE[process.state],
      exitCode: isZombie ? process.stat.exit_code : 0,
      personality: 0,
      flags: isZombie ? 0 : process.stat.flags,
      blkSigset: 0n,
      comm: process.stat.comm,
    });
  }
  if (!isZombie)
    core.threadCore = create(thread_core_entrySchema, { futexRla: 0n, futexRlaLen: 0, cgSet: 1 });
  return core;
}

/** The thread's part of a core. Throws TypeError for a zombie's, which has none. */
export function threadCore(core: core_entry): thread_core_entry {
  if (core.threadCore === undefined)
    throw new TypeError('the core of a task that has ended has no thread_core');
  return core.threadCore;
}

/** The process's part of a leader's core. */
export function taskCore(core: core_entry): task_core_entry {
  if (core.tc === undefined) throw new TypeError("a core that is not a leader's has no tc");
  return core.tc;
}

/** Is an optional field there? (proto2: what is absent reads as its default.) */
export function has<T extends object>(message: T, field: keyof T): boolean {
  return Object.hasOwn(message, field);
}
