import { SIGCONT, SIGKILL, SIGSTOP } from '../abi/signal.js';
import { go } from '../tape/logic.js';
import type { Tape } from '../tape/tape.js';
import type { Commitment } from './commitment.js';
import type { Duty, Target } from './guardian.js';

/** What the guardian does for a dump or a restore that dies. */

/**
 * A dump that will kill, or leave stopped: when the image counts, the tree is killed (stopped); nobody of it has run by
 * then. Otherwise it goes on. Who is `pinned` by a waiting SIGSTOP needs a SIGCONT for that.
 */
export function commitDuty(
  pids: readonly number[],
  commitment: Commitment,
  kill: boolean,
  pinned: () => readonly number[],
): Duty {
  return {
    whileHeld(tape, target, descriptor) {
      const [committed, stop, done] = [tape.label(), tape.label(), tape.label()];
      tape.about('does the image count?');
      commitment.ifCommitted(tape, descriptor, committed);
      for (const pid of pinned()) tape.call('pidfd_send_signal', [target(pid), SIGCONT, 0, 0], 'any');
      go(tape, done);
      tape.place(committed);
      const signalAll = (signal: number): void => {
        for (const pid of pids) tape.call('pidfd_send_signal', [target(pid), signal, 0, 0], 'any');
      };
      if (kill) {
        commitment.ifUndecided(tape, stop);
        signalAll(SIGKILL);
        commitment.afterKill(tape, descriptor);
        go(tape, done);
      }
      tape.place(stop);
      signalAll(SIGSTOP);
      tape.place(done);
    },
  };
}

/** Whatever a dump has changed for a while: put back, unless the image counts. */
export function undoDuty(commitment: Commitment, entries: (tape: Tape, target: Target) => void): Duty {
  return {
    whileHeld(tape, target, descriptor) {
      const done = tape.label();
      tape.about('undo');
      commitment.ifCommitted(tape, descriptor, done);
      entries(tape, target);
      tape.place(done);
    },
  };
}

/** A restore that is about to let go of its tree: what has been released dies with the rest. */
export function releaseDuty(pids: readonly number[]): Duty {
  return {
    whileHeld(tape, target) {
      for (const pid of pids) tape.call('pidfd_send_signal', [target(pid), SIGKILL, 0, 0], 'any');
    },
  };
}
