import { errnoMessage, errnoName } from '../abi/errno.js';

/** A system call of ours that failed. `errno` is positive, as in errno(3). */
export class SyscallError extends Error {
  readonly code: string;
  readonly call: string;
  readonly errno: number;
  readonly object: string | undefined;

  constructor(call: string, errno: number, object?: string) {
    const name = errnoName(errno);
    super(`${call}${object === undefined ? '' : ` (${object})`}: ${errnoMessage(errno)} [${name}]`);
    this.name = 'SyscallError';
    this.call = call;
    this.errno = errno;
    this.object = object;
    this.code = name;
  }
}
