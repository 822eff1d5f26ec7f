/**
 * The state of tasks: all that is neither memory nor files. One module a kind of state; the order here is that of
 * the restore.
 */
import type { TaskState } from '../contract.js';
import { alternateStack } from './altstack.js';
import { childSubreaper, loginuid, oomScore, parentDeathSignal } from './attributes.js';
import { credentials } from './credentials.js';
import { intervalTimers } from './itimers.js';
import { membarrier } from './membarrier.js';
import { names, personality } from './names.js';
import { memoryPolicy } from './numa.js';
import { obstacles } from './obstacles.js';
import { posixTimers } from './posix-timers.js';
import { processor } from './processor.js';
import { resourceLimits } from './rlimits.js';
import { restartableSequences } from './rseq.js';
import { affinity, scheduling } from './scheduling.js';
import { seccomp } from './seccomp.js';
import { signalActions } from './signal-actions.js';
import { signalMask } from './signal-mask.js';
import { sharedSignals, threadSignals } from './signal-queue.js';
import { stopReports } from './stop-reports.js';
import { robustList, tidAddress } from './thread-exit.js';
import { coredumpFilter, ioPriority, processSwitches, taskExtras, threadSwitches } from './tuning.js';

export { newCore } from './core.js';
export { EXTRAS_FILE } from './extras.js';
export { inquire } from './inquiries.js';
export {
  cureForThaw,
  goingOn,
  hasRestartBlock,
  type InterruptedContext,
  registersForImage,
  trueCall,
} from './interrupted.js';
export { dumpExtendedRegisters, dumpRegisters, type LoadedRegisters, loadRegisters } from './registers.js';
export { mayBeInside, outsideCriticalSection } from './rseq.js';
export { ignoredIn } from './signal-actions.js';
export { maskOf } from './signal-mask.js';
export { pendingIn } from './signal-queue.js';
export { callMadeAgain, hasTimeout, mayShorten, remainingOf, withTimeout } from './timeouts.js';

export const taskStates: readonly TaskState[] = [
  obstacles,
  personality,
  names,
  robustList,
  tidAddress,
  membarrier,
  signalActions,
  signalMask,
  alternateStack,
  stopReports,
  // Signals before anything that may send some, and both before RLIMIT_SIGPENDING.
  sharedSignals,
  threadSignals,
  restartableSequences,
  intervalTimers,
  posixTimers,
  // All that takes privileges the credentials may take away, the hard limits too.
  memoryPolicy,
  affinity,
  scheduling,
  ioPriority,
  threadSwitches,
  processor,
  processSwitches,
  coredumpFilter,
  oomScore,
  loginuid,
  childSubreaper,
  taskExtras,
  resourceLimits,
  seccomp,
  credentials,
  // A change of ids clears it.
  parentDeathSignal,
];
