import { SIGCONT, SIGSTOP, signalBit } from '../../abi/signal.js';
import * as ptrace from '../../kernel/ptrace.js';
import { syscall } from '../../kernel/syscall.js';
import { describeStatus, isEventStop, waitFor } from '../../kernel/wait.js';
import { LostTaskError } from '../../tape/play.js';
import { finalSignalOf } from './final-signal.js';
import type { RestoreProcess } from './images.js';
import type { ThreadPlan } from './plan.js';

const TASK_STOPPED = 3;

export function isStopped({ core }: RestoreProcess): boolean {
  return core.tc?.taskState === TASK_STOPPED;
}

/** What a stopped process was stopped by: SIGSTOP, SIGTSTP, SIGTTIN or SIGTTOU. */
export function stopSignalOf({ core }: RestoreProcess): number {
  return core.tc?.stopSigno || SIGSTOP;
}

/** Answers whom: those whose parents are of the tree, for nobody else is told before all of it goes on. */
export function stopChildren(states: readonly ThreadPlan[]): ReadonlySet<RestoreProcess> {
  const children = states.filter(
    // A tape that ends with SIGCONT would end the stop as well.
    ({ task, process }) =>
      task.isLeader && process.parent !== undefined && isStopped(process) && finalSignalOf(task) !== SIGCONT,
  );
  for (const { process } of children) {
    const tids = process.threads.map(({ tid }) => tid);
    stopGroup(tids, stopSignalOf(process), process.name);
  }
  return new Set(children.map(({ process }) => process));
}

/**
 * Stop a process of an image as it was stopped, while its parent is ours as well and blocks everything. The kernel tells
 * the parent (SIGCHLD) when the last thread has stopped, once: who is traced goes on with tapes in a stopped process, and
 * is let go of into the stop without a word (kernel/signal.c do_signal_stop, task_participate_group_stop). So the parent
 * forgets that signal before it gets those that it had.
 *
 * Each thread, the first one first, is in a ptrace stop. None gets back to its own code: it meets the next stop before.
 */
function stopGroup(tids: readonly number[], signal: number, name: string): void {
  const [leader, ...others] = tids;
  if (leader === undefined) return;
  if (stopLeader(leader, signal, name) !== signal) stopLeader(leader, SIGSTOP, name);
  for (const tid of others) {
    ptrace.resume(tid);
    eventStop(tid, name);
  }
}

/** By what it is stopped now: SIGTRAP where the signal does nothing, as in a group that nobody minds (all but SIGSTOP). */
function stopLeader(leader: number, signal: number, name: string): number {
  const mask = ptrace.getSignalMask(leader);
  ptrace.setSignalMask(leader, ALL & ~signalBit(signal));
  syscall('kill', [leader, signal], name);
  ptrace.resume(leader);
  const status = waitFor(leader);
  if (status.kind !== 'stopped' || status.event !== 0)
    throw new LostTaskError(`${name}: ${describeStatus(status)}`);
  // So that it stops once more either way.
  ptrace.interrupt(leader);
  ptrace.resume(leader, status.signal);
  const stopped = eventStop(leader, name);
  ptrace.setSignalMask(leader, mask);
  return stopped;
}

const ALL = 0xffff_ffff_ffff_ffffn;

function eventStop(tid: number, name: string): number {
  const status = waitFor(tid);
  if (status.kind !== 'stopped' || !isEventStop(status))
    throw new LostTaskError(`${name}: ${describeStatus(status)}`);
  return status.signal;
}
