import { POLLERR, POLLHUP, POLLIN } from '../../abi/event.js';
import { O_CLOEXEC, O_NONBLOCK, O_PATH, O_RDONLY } from '../../abi/fcntl.js';
import { encodeName } from '../../image/index.js';
import { SyscallError } from '../../kernel/errors.js';
import { OwnedFd } from '../../kernel/fd.js';
import { scratch } from '../../kernel/memory.js';
import { pollNow } from '../../kernel/poll.js';
import { syscall } from '../../kernel/syscall.js';

/** System calls of this process on duplicates of the tree's descriptors. */

export function fcntl(fd: number, command: number, argument: number | bigint = 0): number {
  return syscall('fcntl', [fd, command, argument], `descriptor ${fd}`);
}

/** A path as the kernel wants it; names that are not UTF-8 come from procfs with their bytes escaped. */
export function pathBytes(path: string): Buffer {
  return Buffer.from(encodeName(path));
}

/** Open a path that may hold any bytes. */
export function openPath(path: string, flags: number): OwnedFd {
  const bytes = pathBytes(path);
  scratch.bytes.set(bytes);
  scratch.bytes[bytes.length] = 0;
  return new OwnedFd(syscall('open', [scratch.address, flags | O_CLOEXEC, 0], path));
}

/**
 * A new description of what `taken` is open on, for reading: reading through `taken` itself would move the program's
 * offset, and it may be write-only or O_PATH.
 */
export function reopenForReading(taken: number): OwnedFd {
  return openPath(`/proc/self/fd/${taken}`, O_RDONLY | O_NONBLOCK);
}

export function isPathOnly(flags: number): boolean {
  return (flags & O_PATH) === O_PATH;
}

/** A descriptor for a process, to take descriptors out of it. */
export function openPidfd(pid: number): OwnedFd {
  return new OwnedFd(syscall('pidfd_open', [pid, 0], `pid ${pid}`));
}

/** A duplicate of a process's descriptor. Throws SyscallError (EBADF: closed meanwhile; EPERM: no ptrace access). */
export function takeDescriptor(pidfd: number, fd: number, what: string): OwnedFd {
  return new OwnedFd(syscall('pidfd_getfd', [pidfd, fd, 0], what));
}

/** As that, of a process that runs, perhaps: undefined where the descriptor was closed, or the process ended, meanwhile. */
export function takeIfOpen(pid: number, fd: number, what: string): OwnedFd | undefined {
  try {
    using pidfd = openPidfd(pid);
    return takeDescriptor(pidfd.fd, fd, what);
  } catch (error) {
    if (error instanceof SyscallError && (error.code === 'EBADF' || error.code === 'ESRCH')) return undefined;
    throw error;
  }
}

/** Has a pipe's end nobody at the other end? A read end says HUP, a write end ERR (fs/pipe.c pipe_poll). */
export function lacksOtherEnd(fd: number): boolean {
  return (pollNow(fd, POLLIN) & (POLLERR | POLLHUP)) !== 0;
}

/** As the kernel keeps a device number (MKDEV: 20 bits of minor), from what stat(2) says. */
export function kernelDevice(device: bigint): number {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n);
  const minor = (device & 0xffn) | ((device >> 12n) & 0xffffff00n);
  return Number(((major << 20n) | minor) & 0xffffffffn);
}

export function deviceNumbers(device: bigint): { major: number; minor: number } {
  return {
    major: Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n)),
    minor: Number((device & 0xffn) | ((device >> 12n) & 0xffffff00n)),
  };
}
