import { SIGURG } from '../../abi/signal.js';
import type { RestoreTask } from '../../resources/contract.js';
import { ignoredIn, pendingIn } from '../../resources/process/index.js';

/**
 * By which signal a task stops at the end of its last tape. One that is pending in the image must not be the one that
 * ends the tape which makes it pending. Nor may a thread's be one that is ignored: its leader sets the signal actions at
 * that time, which throws ignored signals of all threads away (kernel/signal.c do_sigaction), even one that has been
 * sent and not stopped anybody yet; the thread would go on to its end.
 */
export function finalSignalOf(task: RestoreTask): number {
  const pending = pendingIn(task.core, task.leaderCore);
  const unfit = task.isLeader ? pending : pending | ignoredBy(task);
  const candidates = task.isLeader ? IGNORED : [...OTHERS, ...IGNORED];
  return candidates.find((signal) => (unfit & (1n << BigInt(signal - 1))) === 0n) ?? SIGURG;
}

/** Asked for every thread of a process, which all have the same actions. */
function ignoredBy({ leaderCore }: RestoreTask): bigint {
  const ignored = known.get(leaderCore) ?? ignoredIn(leaderCore);
  known.set(leaderCore, ignored);
  return ignored;
}

const known = new WeakMap<RestoreTask['leaderCore'], bigint>();

/** SIGURG, SIGWINCH, SIGCHLD, SIGCONT: ignored by default. */
const IGNORED = [SIGURG, 28, 17, 18];

/** SIGSTKFLT and SIGPWR, which hardly anybody sends, SIGXFSZ, SIGUSR2, SIGUSR1: not ignored by default. */
const OTHERS = [16, 30, 25, 12, 10];
