import { OwnedFd } from '../../kernel/fd.js';
import { attempt } from '../../kernel/syscall.js';
import type { Descriptor } from '../contract.js';

/** Look at a descriptor of the tree through a duplicate of it; undefined where it was closed meanwhile. */
export function throughDuplicate<T>({ process, fd }: Descriptor, look: (taken: number) => T): T | undefined {
  const pidfd = attempt('pidfd_open', [process.pid, 0]);
  if (pidfd < 0) return undefined;
  using opened = new OwnedFd(pidfd);
  const duplicate = attempt('pidfd_getfd', [opened.fd, fd, 0]);
  if (duplicate < 0) return undefined;
  using taken = new OwnedFd(duplicate);
  return look(taken.fd);
}
