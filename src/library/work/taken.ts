import { closeSync } from 'node:fs';
import { takeDescriptor } from '../../kernel/channel.js';

/** Duplicates of descriptors of the caller, whose child an engine is, or of its own; closed at the end of the call. */
export class Taken implements Disposable {
  readonly #owner: number;
  readonly #fds: number[] = [];

  constructor(inherited: boolean) {
    this.#owner = inherited ? process.pid : process.ppid;
  }

  /** @throws SyscallError (EBADF) when the caller has none of that number */
  take(fd: number, what: string): number {
    const duplicate = takeDescriptor(this.#owner, fd, `descriptor ${fd}, ${what}`);
    this.#fds.push(duplicate);
    return duplicate;
  }

  [Symbol.dispose](): void {
    for (const fd of this.#fds.splice(0)) closeSync(fd);
  }
}
