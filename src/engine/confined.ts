import { SECCOMP_MODE_DISABLED, SECCOMP_MODE_FILTER } from '../abi/seccomp.js';
import type { SyscallName } from '../abi/syscalls.js';
import * as ptrace from '../kernel/ptrace.js';
import type { Thread } from '../resources/contract.js';
import { type Verdict, verdictOf } from '../tape/verdict.js';

/**
 * Threads whose seccomp filters would not let them go home by themselves. Filters are suspended while we trace a thread;
 * when we die, it makes the rest of its tape's calls, and those of the way home, under them.
 */

/** Calls of the way home, which have to be made, */
const WAY_HOME: readonly SyscallName[] = ['munmap', 'rt_sigreturn'];
/** and calls on the tapes of a dump, which may fail: nobody waits for their answers any more. */
const ON_TAPES: readonly SyscallName[] = [
  'tgkill', 'arch_prctl', 'brk', 'get_mempolicy', 'getgroups', 'getitimer', 'getresgid', 'getresuid', 'keyctl',
  'membarrier', 'modify_ldt', 'prctl', 'rt_sigaction', 'setfsgid', 'setfsuid', 'sigaltstack', 'timer_getoverrun',
  'timer_gettime', 'clone3', 'close_range', 'waitid', 'exit_group', 'ioprio_get', 'getpriority', 'sched_getattr',
]; // biome-ignore format: a list

/** For a frozen thread. True also where the filters cannot be read. */
export function isConfined(thread: Thread): boolean {
  const { seccomp } = thread.status;
  if (seccomp === SECCOMP_MODE_DISABLED) return false;
  if (seccomp !== SECCOMP_MODE_FILTER) return true;
  const filters = filtersOf(thread.tid);
  if (filters === undefined) return true;
  return (
    WAY_HOME.some((call) => judge(filters, call) !== 'made') ||
    ON_TAPES.some((call) => judge(filters, call) === 'fatal')
  );
}

/** A call on a tape that would end a thread which is not held to be confined; undefined if all is well. */
export function fatalCall(thread: Thread, calls: readonly SyscallName[]): SyscallName | undefined {
  if (thread.status.seccomp !== SECCOMP_MODE_FILTER) return undefined;
  const others = [...new Set(calls)].filter((call) => !ON_TAPES.includes(call));
  if (others.length === 0) return undefined;
  const filters = filtersOf(thread.tid) ?? [];
  return others.find((call) => judge(filters, call) === 'fatal');
}

/** Would this frozen thread, and what it bears, make all of these calls if we died now? */
export function makes(thread: Thread, calls: readonly SyscallName[]): boolean {
  const { seccomp } = thread.status;
  if (seccomp === SECCOMP_MODE_DISABLED) return true;
  const filters = seccomp === SECCOMP_MODE_FILTER ? filtersOf(thread.tid) : undefined;
  return filters !== undefined && calls.every((call) => judge(filters, call) === 'made');
}

function filtersOf(tid: number): Uint8Array[] | undefined {
  const filters: Uint8Array[] = [];
  try {
    for (;;) {
      const filter = ptrace.getSeccompFilter(tid, filters.length);
      if (filter === undefined) return filters;
      filters.push(filter);
    }
  } catch {
    return undefined;
  }
}

/** The same filters are on many threads. By their bytes, then by call. */
const known = new Map<string, Map<SyscallName, Verdict>>();
const KNOWN_MAX = 1000;

function judge(filters: readonly Uint8Array[], call: SyscallName): Verdict {
  const key = filters.map((filter) => Buffer.from(filter).toString('latin1')).join('|');
  const verdicts = known.get(key) ?? new Map<SyscallName, Verdict>();
  if (known.size < KNOWN_MAX) known.set(key, verdicts);
  const verdict = verdicts.get(call) ?? verdictOf(filters, call);
  verdicts.set(call, verdict);
  return verdict;
}
