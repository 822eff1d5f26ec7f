import { P_PID, WNOHANG, WNOWAIT, WUNTRACED } from '../../abi/process.js';
import type { Played, Space, Tape, TaskState, Thread } from '../contract.js';
import { extrasFor, extrasOf } from './extras.js';

/**
 * Children that are stopped: their parent is told of it by one wait(2), unless that leaves the news (WNOWAIT). Which of
 * them it has heard of is asked for so, and they are waited for once more when they have been stopped again.
 */
export const stopReports: TaskState = {
  name: 'stops of children',
  scope: 'process',
  support: 'whether the parent has waited for them (waitid(2) WSTOPPED)',

  variant: (thread) => stoppedChildren(thread).join(),

  ask(tape, thread) {
    const answers = stoppedChildren(thread).map((pid) => ({ pid, answer: wait(tape, pid, WNOWAIT) }));
    return (played, { insideTid }, context) => {
      const reported = answers.filter(({ answer }) => pidIn(played, answer) === 0).map(({ pid }) => pid);
      if (reported.length > 0) extrasOf(context, insideTid).reported_stops = reported;
    };
  },

  restore(task, tape) {
    for (const pid of extrasFor(task.reader, task.pid)?.reported_stops ?? []) wait(tape, pid, 0);
  },
};

function stoppedChildren({ process }: Thread): number[] {
  return process.children.filter(({ state }) => state === 'stopped').map(({ insidePid }) => insidePid);
}

/** What there is to tell of a child's stop, in a siginfo. */
function wait(tape: Tape, pid: number, options: number): Space {
  const siginfo = tape.space(128);
  tape.call('waitid', [P_PID, pid, siginfo, WUNTRACED | WNOHANG | options, 0], 'any');
  return siginfo;
}

/** include/uapi/asm-generic/siginfo.h; 0 where nothing is left to be told. */
function pidIn(played: Played, siginfo: Space): number {
  return played.view(siginfo).getInt32(16, true);
}
