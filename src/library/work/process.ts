import { ERRNO } from '../../abi/errno.js';
import { SyscallError } from '../../kernel/errors.js';
import { attempt } from '../../kernel/syscall.js';

/** @throws SyscallError (ESRCH) when there is no such process */
export function assertProcess(pid: number): void {
  const result = attempt('kill', [pid, 0]);
  if (result === -ERRNO.ESRCH) throw new SyscallError('kill', ERRNO.ESRCH, `pid ${pid}`);
}
