import { PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP } from '../../abi/prctl.js';
import { __WALL, CLONE_FILES, CLONE_VFORK, CLONE_VM } from '../../abi/process.js';
import type { SyscallName } from '../../abi/syscalls.js';
import { words } from '../../kernel/words.js';
import { cloneArguments } from '../../tape/clone.js';
import type { Expectation, Operand } from '../../tape/tape.js';
import type { Tape } from '../contract.js';
import type { Credentials } from './unix-extras.js';

/**
 * SO_PEERCRED tells who called socketpair(2), listen(2) or connect(2), by the pid and the credentials of that moment. So
 * they are called by a child of the holder's that has these, and ends: no process of the image exists yet, so its pid is
 * free. Where it is taken (whoever it was lives on, outside of the tree), the holder itself calls, with the pid wrong.
 */
export type Caller = (name: SyscallName, operands: readonly Operand[], expectation?: Expectation) => void;

const FUTEX_CMP_REQUEUE_PRIVATE = 4 | 128;

export function callAs(tape: Tape, who: Credentials | undefined, act: (call: Caller) => void): void {
  const own: Caller = (name, operands, expectation) => {
    tape.call(name, operands, expectation);
  };
  if (who === undefined) {
    act(own);
    return;
  }
  if (who.pid === 0) {
    actAs(tape, who, own, act);
    return;
  }
  const groups = groupsOf(tape, who);
  const child = tape.clone(
    cloneArguments(tape, CLONE_VM | CLONE_VFORK | CLONE_FILES, { tid: who.pid }),
    (branch) => {
      // Capabilities stay through a change of ids: a socket may be one that its owner could not connect to by now.
      branch.call('prctl', [PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0]);
      branch.call('setgroups', groups);
      branch.call('setresgid', [who.gid, who.gid, who.gid]);
      branch.call('setresuid', [who.uid, who.uid, who.uid]);
      act((name, operands, expectation) => {
        branch.call(name, operands, expectation);
      });
    },
    'any',
  );
  const done = tape.label();
  const pid = tape.space(8);
  tape.copy(child, pid, 0);
  tape.call('wait4', [who.pid, 0, __WALL, 0], 'any');
  tape.jump('futex', [pid, FUTEX_CMP_REQUEUE_PRIVATE, 0, 0, pid, who.pid], done);
  actAs(tape, who, own, act);
  tape.place(done);
}

function actAs(tape: Tape, who: Credentials, own: Caller, act: (call: Caller) => void): void {
  tape.call('prctl', [PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0]);
  tape.call('setgroups', groupsOf(tape, who));
  tape.call('setresgid', [-1, who.gid, -1]);
  tape.call('setresuid', [-1, who.uid, -1]);
  act(own);
  tape.call('setresuid', [-1, 0, -1]);
  tape.call('setresgid', [-1, 0, -1]);
  tape.call('setgroups', [0, 0]);
  tape.call('prctl', [PR_SET_SECUREBITS, 0, 0, 0, 0]);
}

function groupsOf(tape: Tape, { groups }: Credentials): [number, Operand] {
  return [groups.length, tape.space(words(groups))];
}

export function sameCredentials(a: Credentials | undefined, b: Credentials | undefined): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
