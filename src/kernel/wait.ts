import { readdirSync, readFileSync } from 'node:fs';
import { ERRNO } from '../abi/errno.js';
import { __WALL, P_PID, WEXITED, WNOHANG, WNOWAIT } from '../abi/process.js';
import { PTRACE_EVENT_STOP } from '../abi/ptrace.js';
import { CLD_DUMPED, CLD_EXITED, CLD_KILLED, SIGTRAP } from '../abi/signal.js';
import { SyscallError } from './errors.js';
import { scratch } from './memory.js';
import { attempt, sleep_us } from './syscall.js';
import { askAll } from './together.js';

const WSTOPPED = 2;
/** Where siginfo of a SIGCHLD has what (include/uapi/asm-generic/siginfo.h). */
const SIGINFO_SIZE = 128;
const SIGINFO = { code: 8, pid: 16, status: 24 } as const;

/** What wait4(2) said of a task. A stop's `event` is PTRACE_EVENT_* or 0. */
export type WaitStatus =
  | { readonly kind: 'stopped'; readonly signal: number; readonly event: number }
  | { readonly kind: 'exited'; readonly status: number }
  | { readonly kind: 'killed'; readonly signal: number; readonly core: boolean }
  | { readonly kind: 'none' }
  | { readonly kind: 'gone' };

/** Counted over the life of this process: what a stop costs is two context switches. */
export const statistics = { stops: 0 };

/** Decode a wait(2) status word. */
function decodeStatus(word: number): WaitStatus {
  const low = word & 0x7f;
  if (low === 0) return { kind: 'exited', status: (word >> 8) & 0xff };
  if ((word & 0xff) === 0x7f) return { kind: 'stopped', signal: (word >> 8) & 0xff, event: word >> 16 };
  return { kind: 'killed', signal: low, core: (word & 0x80) !== 0 };
}

/**
 * Leaders of several threads that we trace. One that was killed is not told of before all its threads have been collected
 * (kernel/exit.c wait_consider_task, delay_group_leader), and that is for us to do: a wait for it alone would never end.
 */
const leaders = new Set<number>();

/** From now on, or no longer, this process traces other threads of `tid`'s process too. */
export function noteThreads(tid: number, areThere: boolean): void {
  if (areThere) leaders.add(tid);
  else leaders.delete(tid);
}

/** Wait for a change of exactly this task; `gone` when it is no child or tracee of ours (ECHILD). */
export function waitFor(tid: number, block = true): WaitStatus {
  if (block && leaders.has(tid)) return waitForLeader(tid);
  const result = attempt('wait4', [tid, scratch.address, __WALL | (block ? 0 : WNOHANG), 0]);
  return waited(result, scratch.view, tid);
}

function waited(result: number, view: DataView, tid: number): WaitStatus {
  if (result === -ERRNO.ECHILD) return { kind: 'gone' };
  if (result < 0) throw new SyscallError('wait4', -result, `task ${tid}`);
  if (result === 0) return { kind: 'none' };
  const status = decodeStatus(view.getInt32(0, true));
  if (status.kind === 'stopped') statistics.stops++;
  return status;
}

/** As `waitFor`, for a leader whose threads may be there, dead and not collected. */
export function waitForLeader(tid: number): WaitStatus {
  for (let spins = 0; ; spins++) {
    const status = waitFor(tid, false);
    if (status.kind !== 'none') return status;
    if (spins < SPINS) continue;
    if (isZombie(tid)) for (const thread of threadsOf(tid)) if (thread !== tid) waitFor(thread, false);
    sleep_us(PAUSE_US);
  }
}

const SPINS = 200;
const PAUSE_US = 50;

function isZombie(tid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${tid}/stat`, 'latin1');
    return stat.charAt(stat.lastIndexOf(')') + 2) === 'Z';
  } catch {
    return false;
  }
}

function threadsOf(tid: number): number[] {
  try {
    return readdirSync(`/proc/${tid}/task`).map(Number);
  } catch {
    return [];
  }
}

/**
 * As `waitFor` without blocking, but the change stays to be waited for. A stop at a signal's delivery must be looked at
 * like this before it is resumed: the signal of one that was waited for is lost if we die before that, since wait(2)
 * takes the code which the task finds on its way out (kernel/exit.c wait_task_stopped, kernel/signal.c ptrace_stop).
 */
export function peekAt(tid: number): WaitStatus {
  const { address, view } = scratch;
  view.setInt32(SIGINFO.pid, 0, true);
  return peeked(attempt('waitid', [P_PID, tid, address, PEEK, 0]), view, tid);
}

const PEEK = WNOHANG | WEXITED | WSTOPPED | WNOWAIT | __WALL;

/** As `peekAt`, of many. */
export function peekAtAll(tids: readonly number[]): WaitStatus[] {
  return askAll(
    tids,
    SIGINFO_SIZE,
    (ask, tid, at) => ask('waitid', P_PID, tid, at, PEEK, 0),
    ({ results: [result = 0], view }, tid) => peeked(result, view, tid),
  );
}

/** Take the stops that `peekAtAll` saw. */
export function takeStops(tids: readonly number[]): void {
  askAll(
    tids,
    4,
    (ask, tid, at) => ask('wait4', tid, at, __WALL | WNOHANG, 0),
    ({ results: [result = 0], view }, tid) => waited(result, view, tid),
  );
}

/** As `waitFor`, of many; waits for all of them. Undefined where that failed, and for leaders of several threads: not waited for. */
export function waitForAll(tids: readonly number[]): (WaitStatus | undefined)[] {
  return askAll<number, WaitStatus | undefined>(
    tids,
    4,
    (ask, tid, at) => {
      if (!leaders.has(tid)) ask('wait4', tid, at, __WALL, 0);
    },
    ({ results: [result], view }, tid) => (result === undefined ? undefined : waited(result, view, tid)),
    () => undefined,
  );
}

function peeked(result: number, view: DataView, tid: number): WaitStatus {
  if (result === -ERRNO.ECHILD) return { kind: 'gone' };
  if (result < 0) throw new SyscallError('waitid', -result, `task ${tid}`);
  if (view.getInt32(SIGINFO.pid, true) === 0) return { kind: 'none' };
  const status = view.getInt32(SIGINFO.status, true);
  switch (view.getInt32(SIGINFO.code, true)) {
    case CLD_EXITED:
      return { kind: 'exited', status };
    case CLD_KILLED:
    case CLD_DUMPED:
      return {
        kind: 'killed',
        signal: status & 0x7f,
        core: view.getInt32(SIGINFO.code, true) === CLD_DUMPED,
      };
    default:
      return { kind: 'stopped', signal: status & 0xff, event: status >> 8 };
  }
}

/** Wait for a change of any child or tracee of this thread. Throws SyscallError ECHILD when there is none. */
export function waitForAny(): { readonly tid: number; readonly status: WaitStatus } {
  const tid = attempt('wait4', [-1, scratch.address, __WALL, 0]);
  if (tid < 0) throw new SyscallError('wait4', -tid, 'any task');
  return { tid, status: decodeStatus(scratch.view.getInt32(0, true)) };
}

/** Is this a PTRACE_INTERRUPT, group or birth stop of a seized task? */
export function isEventStop(status: WaitStatus): boolean {
  return status.kind === 'stopped' && status.event === PTRACE_EVENT_STOP;
}

const SYSGOOD = 0x80;

/** Is this the entry to, or exit from, a system call that `resumeToSyscall` leads to? */
export function isSyscallStop(status: WaitStatus): boolean {
  return status.kind === 'stopped' && status.event === 0 && (status.signal & ~SYSGOOD) === SIGTRAP;
}

/** One line for messages. */
export function describeStatus(status: WaitStatus): string {
  switch (status.kind) {
    case 'stopped':
      return `stopped by signal ${status.signal}${status.event === 0 ? '' : `, event ${status.event}`}`;
    case 'exited':
      return `exited with status ${status.status}`;
    case 'killed':
      return `killed by signal ${status.signal}${status.core ? ' (core dumped)' : ''}`;
    case 'none':
      return 'no change';
    case 'gone':
      return 'not a child or tracee (any more)';
    default:
      return status satisfies never;
  }
}
