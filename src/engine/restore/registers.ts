import { SYSCALL_X86_64 } from '../../abi/syscalls.js';
import * as ptrace from '../../kernel/ptrace.js';
import { NO_SYSCALL } from '../../kernel/registers.js';
import { LOOP_SYSCALL } from '../../machine/x86_64.js';
import type { AddressRange, RestoreTask } from '../../resources/contract.js';
import { type LoadedRegisters, maskOf } from '../../resources/process/index.js';
import type { Actor } from '../../tape/play.js';
import { beginWait, waitForTrap } from './waits.js';

/** The last of a restore that is not a tape's: nothing of ours stays in a process, and its threads have their own registers. */

/** The last injected call of every process; its return address is gone with it, so registers follow before it runs on. */
export function unmapWorkspaces(leaders: readonly Actor[], { address, size }: AddressRange): void {
  for (const { tid, base, slice } of leaders) {
    // SAFETY: all threads of the process are stopped and get new registers before they run.
    ptrace.setRegisters(tid, base, {
      ip: slice.code + BigInt(LOOP_SYSCALL),
      ax: BigInt(SYSCALL_X86_64.munmap),
      di: address,
      si: size,
      orig_ax: NO_SYSCALL,
    });
  }
  for (const round of ['entry', 'exit']) {
    for (const { tid } of leaders) ptrace.resumeToSyscall(tid);
    for (const { tid, name } of leaders) waitForTrap(tid, `${name}: munmap ${round}`);
  }
}

/** What a thread goes on with when it is let go. */
export function setRegisters(task: RestoreTask, loaded: LoadedRegisters | undefined): void {
  const { tid, core, name } = task;
  if (loaded === undefined) throw new Error(`${name}: no registers were loaded for thread ${tid}`);
  const { registers, xstate, remaining_ns } = loaded;
  // SAFETY: everything the image's registers lead to was mapped as the image says.
  if (xstate !== undefined) ptrace.setXstate(tid, xstate);
  const goesOn = remaining_ns === undefined ? registers : beginWait(tid, registers, remaining_ns, name);
  ptrace.setRegisters(tid, goesOn);
  ptrace.setSignalMask(tid, maskOf(core));
}
