import { AT_FDCWD } from '../abi/fcntl.js';
import type { Tape } from '../tape/tape.js';
import type { Duty, Target } from './guardian.js';
import { go } from './tape-logic.js';

/** What the guardian does for a dump or a restore that dies. */

const SIGKILL = 9;
const SIGCONT = 18;
const SIGSTOP = 19;

/**
 * A dump that will kill, or leave stopped: when the image has its inventory, the tree is killed (stopped); nobody of it
 * has run by then. Otherwise it goes on. Who is `pinned` by a waiting SIGSTOP needs a SIGCONT for that.
 */
export function commitDuty(
  pids: readonly number[],
  inventory: string,
  kill: boolean,
  pinned: () => readonly number[],
): Duty {
  return {
    whileHeld(tape, target) {
      const [committed, done] = [tape.label(), tape.label()];
      tape.about('is there an inventory?');
      tape.jump('faccessat', [AT_FDCWD, tape.string(inventory), 0], committed);
      for (const pid of pinned()) tape.call('pidfd_send_signal', [target(pid), SIGCONT, 0, 0], 'any');
      go(tape, done);
      tape.place(committed);
      const signal = kill ? SIGKILL : SIGSTOP;
      for (const pid of pids) tape.call('pidfd_send_signal', [target(pid), signal, 0, 0], 'any');
      tape.place(done);
    },
  };
}

/** Whatever a dump has changed for a while: put back, unless there is an inventory. */
export function undoDuty(inventory: string, entries: (tape: Tape, target: Target) => void): Duty {
  return {
    whileHeld(tape, target) {
      const done = tape.label();
      tape.about('undo');
      tape.jump('faccessat', [AT_FDCWD, tape.string(inventory), 0], done);
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
