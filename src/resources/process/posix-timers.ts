import { create } from '@bufbuild/protobuf';
import {
  PR_TIMER_CREATE_RESTORE_IDS,
  PR_TIMER_CREATE_RESTORE_IDS_GET,
  PR_TIMER_CREATE_RESTORE_IDS_OFF,
  PR_TIMER_CREATE_RESTORE_IDS_ON,
} from '../../abi/prctl.js';
import { SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD, SIGEV_THREAD_ID } from '../../abi/signal.js';
import { type posix_timer_entry, posix_timer_entrySchema } from '../../image/schema/index.js';
import { unlessVanished } from '../../kernel/procfs/error.js';
import { type PosixTimer, readTimers } from '../../kernel/procfs/timers.js';
import { attempt } from '../../kernel/syscall.js';
import { nameOf, type Process, type Tape, type TaskState, type Thread } from '../contract.js';
import { has, taskCore } from './core.js';
import { timersOf } from './itimers.js';
import { timerThread } from './timer-thread.js';

/**
 * POSIX timers: /proc/PID/timers lists them, timer_gettime(2) and timer_getoverrun(2) answer for their values. Each is
 * made again under its id: since Linux 6.15 on demand (PR_TIMER_CREATE_RESTORE_IDS); before that ids were handed out
 * one after the other, so timers are made and deleted up to the one wanted.
 */

/** struct itimerspec: interval and value, seconds and nanoseconds each. */
const ITIMERSPEC_SIZE = 32;
/** struct sigevent */
const SIGEVENT_SIZE = 64;
const SIGEVENT = { value: 0, signo: 8, notify: 12, tid: 16 } as const;
const NOTIFY = { signal: SIGEV_SIGNAL, none: SIGEV_NONE, thread: SIGEV_THREAD } as const;
/** CLOCK_THREAD_CPUTIME_ID as the kernel lists it: the CPU time of whichever thread made the timer. */
const OWN_THREAD_CLOCK = -2;

function isOfSomeThread({ clock }: Pick<PosixTimer, 'clock'>, { threads }: Process): boolean {
  return clock === OWN_THREAD_CLOCK && threads.length > 1;
}

/** What pthread_getcpuclockid(3) says of a thread (include/linux/posix-timers_types.h). */
function clockOf({ insideTid }: Thread): number {
  const CPUCLOCK_SCHED = 2;
  const CPUCLOCK_PERTHREAD_MASK = 4;
  return (~insideTid << 3) | CPUCLOCK_SCHED | CPUCLOCK_PERTHREAD_MASK;
}

function whyUnknown(process: Process, id: number): string | undefined {
  try {
    timerThread(process, id);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** What a tape of questions has room for. */
const TIMERS_MAX = 300;
const OVERRUNS_MAX = 100;
/** Ids that may have to be skipped on kernels before 6.15. */
const SKIPPED_MAX = 20_000;

function entryOf(timer: PosixTimer, process: Process): posix_timer_entry {
  const clock = isOfSomeThread(timer, process) ? clockOf(timerThread(process, timer.id)) : timer.clock;
  const entry = create(posix_timer_entrySchema, {
    itId: timer.id,
    clockId: clock >>> 0,
    siSigno: timer.signal,
    itSigevNotify: NOTIFY[timer.notify] | (timer.target === 'tid' ? SIGEV_THREAD_ID : 0),
    sivalPtr: timer.sigval,
    overrun: 0,
    isec: 0n,
    insec: 0n,
    vsec: 0n,
    vnsec: 0n,
  });
  if (timer.target === 'tid') entry.notifyThreadId = threadOf(timer, process).insideTid;
  return entry;
}

function threadOf(timer: PosixTimer, process: Process): Thread {
  const thread = process.threads.find(({ tid }) => tid === timer.targetId);
  if (thread === undefined)
    throw new Error(
      `${nameOf(process)}: POSIX timer ${timer.id} signals thread ${timer.targetId}, which is gone`,
    );
  return thread;
}

export const posixTimers: TaskState = {
  name: 'POSIX timers',
  scope: 'process',
  support:
    'id, clock, notification, remaining time, period; clocks of a thread by a name of it, where there are several (with BTF); overruns are read but not kept',

  check({ process }, refuse) {
    const timers = unlessVanished(() => readTimers(process.pid)) ?? [];
    if (timers.length > TIMERS_MAX)
      refuse({
        task: nameOf(process),
        object: `${timers.length} POSIX timers`,
        reason: `this release saves at most ${TIMERS_MAX} of a process`,
      });
    for (const { id, clock, targetId } of timers) {
      const unknown = isOfSomeThread({ clock }, process) ? whyUnknown(process, id) : undefined;
      if (unknown !== undefined)
        refuse({
          task: nameOf(process),
          object: `POSIX timer ${id}`,
          reason: `it counts the CPU time of one thread, and it is not known which (${unknown})`,
          help: 'the program could name the thread with pthread_getcpuclockid(3)',
        });
      if (targetId === 0)
        refuse({
          task: nameOf(process),
          object: `POSIX timer ${id}`,
          reason: 'the thread it signals has ended',
        });
    }
  },

  // Who has timers has a tape of its own.
  variant: ({ process: { pid } }) => (readTimers(pid).length === 0 ? '' : String(pid)),

  ask(tape, { process }) {
    const entries = readTimers(process.pid).map((timer) => entryOf(timer, process));
    const answers = entries.map((entry, index) => {
      const value = tape.space(ITIMERSPEC_SIZE);
      tape.call('timer_gettime', [entry.itId, value], 0);
      const overrun = index < OVERRUNS_MAX ? tape.call('timer_getoverrun', [entry.itId], 'any') : undefined;
      return { entry, value, overrun };
    });
    return (played, thread) => {
      for (const { entry, value, overrun } of answers) {
        const view = played.view(value);
        entry.isec = view.getBigUint64(0, true);
        entry.insec = view.getBigUint64(8, true);
        entry.vsec = view.getBigUint64(16, true);
        entry.vnsec = view.getBigUint64(24, true);
        const count = overrun === undefined ? 0n : played.result(overrun);
        entry.overrun = count > 0n ? Number(count) : 0;
      }
      timersOf(thread.core).posix = [...entries];
    };
  },

  restore(task, tape) {
    const entries = [...(taskCore(task.leaderCore).timers?.posix ?? [])].sort((a, b) => a.itId - b.itId);
    if (entries.length === 0) return;
    if (entries.some(({ itId }, index) => itId === entries[index + 1]?.itId))
      throw new Error(`${task.name}: the image has two POSIX timers of one id`);
    if (canChooseIds()) createAtIds(tape, entries);
    else createInOrder(tape, entries, task.name);
    for (const entry of entries) {
      tape.about(`POSIX timer ${entry.itId}`);
      if (entry.vsec !== 0n || entry.vnsec !== 0n)
        tape.call('timer_settime', [entry.itId, 0, tape.space(itimerspec(entry)), 0], 0);
    }
  },
};

/** Asked of this process, whose kernel is that of the tasks. */
function canChooseIds(): boolean {
  return attempt('prctl', [PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_GET, 0, 0, 0]) >= 0;
}

function createAtIds(tape: Tape, entries: readonly posix_timer_entry[]): void {
  const switchTo = (mode: number) => tape.call('prctl', [PR_TIMER_CREATE_RESTORE_IDS, mode, 0, 0, 0], 0);
  switchTo(PR_TIMER_CREATE_RESTORE_IDS_ON);
  for (const entry of entries) {
    tape.about(`POSIX timer ${entry.itId}`);
    createTimer(tape, entry);
  }
  switchTo(PR_TIMER_CREATE_RESTORE_IDS_OFF);
}

/** A wrong guess of the next id is found by the calls that name it: timer_delete, timer_settime. */
function createInOrder(tape: Tape, entries: readonly posix_timer_entry[], task: string): void {
  const last = entries.at(-1)?.itId ?? 0;
  if (last > SKIPPED_MAX)
    throw new Error(
      `${task}: POSIX timer ${last} cannot be made: this kernel hands ids out in order; Linux 6.15 lets them be chosen`,
    );
  let next = 0;
  for (const entry of entries) {
    tape.about(`POSIX timer ${entry.itId}`);
    for (; next < entry.itId; next++) {
      createTimer(tape, { ...entry, itSigevNotify: SIGEV_NONE, itId: next });
      tape.call('timer_delete', [next], 0);
    }
    createTimer(tape, entry);
    tape.call('timer_getoverrun', [entry.itId]);
    next = entry.itId + 1;
  }
}

function createTimer(tape: Tape, entry: posix_timer_entry): void {
  const event = new Uint8Array(SIGEVENT_SIZE);
  const view = new DataView(event.buffer);
  view.setBigUint64(SIGEVENT.value, entry.sivalPtr, true);
  view.setUint32(SIGEVENT.signo, entry.siSigno, true);
  view.setUint32(SIGEVENT.notify, entry.itSigevNotify, true);
  if ((entry.itSigevNotify & SIGEV_THREAD_ID) !== 0 && has(entry, 'notifyThreadId'))
    view.setInt32(SIGEVENT.tid, entry.notifyThreadId, true);
  const id = new Uint8Array(4);
  new DataView(id.buffer).setUint32(0, entry.itId, true);
  tape.call('timer_create', [entry.clockId | 0, tape.space(event), tape.space(id)], 0);
}

function itimerspec(entry: posix_timer_entry): Uint8Array {
  const bytes = new Uint8Array(ITIMERSPEC_SIZE);
  const view = new DataView(bytes.buffer);
  [entry.isec, entry.insec, entry.vsec, entry.vnsec].forEach((value, index) => {
    view.setBigUint64(index * 8, value, true);
  });
  return bytes;
}
