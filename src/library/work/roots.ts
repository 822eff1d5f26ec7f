import { OwnedFd } from '../../kernel/fd.js';
import { syscall } from '../../kernel/syscall.js';
import { waitFor } from '../../kernel/wait.js';
import type { ExitStatus } from '../results.js';

/** The restored roots that are children of this process: their ends are noticed by pidfd, and collected. */
export class Roots {
  readonly #pidfds = new Map<number, { pid: number; fd: OwnedFd }>();

  add(pid: number): void {
    const fd = new OwnedFd(syscall('pidfd_open', [pid, 0], `pid ${pid}`));
    this.#pidfds.set(fd.fd, { pid, fd });
  }

  /** Readable once the root has ended. */
  get fds(): number[] {
    return [...this.#pidfds.keys()];
  }

  /** The end of the root behind a readable pidfd; undefined when it has none yet. */
  collect(pidfd: number): { pid: number; status: ExitStatus } | undefined {
    const root = this.#pidfds.get(pidfd);
    if (root === undefined) return undefined;
    const status = waitFor(root.pid, false);
    if (status.kind === 'none' || status.kind === 'stopped') return undefined;
    this.#pidfds.delete(pidfd);
    root.fd[Symbol.dispose]();
    const { pid } = root;
    if (status.kind === 'exited') return { pid, status: { kind: 'exited', status: status.status } };
    if (status.kind === 'killed')
      return { pid, status: { kind: 'killed', signal: status.signal, core_dumped: status.core } };
    return { pid, status: { kind: 'exited', status: 0 } };
  }
}
