import { isMainThread } from 'node:worker_threads';
import { AT_FDCWD, O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_PATH } from '../../abi/fcntl.js';
import { CLONE_FS } from '../../abi/process.js';
import { OwnedFd } from '../../kernel/fd.js';
import { scratch } from '../../kernel/memory.js';
import type { FileHandle } from '../../kernel/procfs/fdinfo.js';
import { type MountInfo, readMountinfo } from '../../kernel/procfs/mountinfo.js';
import { attempt, syscall } from '../../kernel/syscall.js';
import { openPath } from '../description/calls.js';

/**
 * Files by their handles, open_by_handle_at(2). It needs a descriptor on the file system that is not O_PATH, and to
 * open a directory would be an event for whoever watches it. So it is our working directory that says which file
 * system is meant: for the moment, and of this thread alone.
 */

/** Linux's MAX_HANDLE_SZ. */
export const HANDLE_BYTES_MAX = 128;

/** struct file_handle: length, type, bytes. */
export function handleBytes({ type, handle }: FileHandle): Uint8Array {
  const opaque = Buffer.from(handle, 'hex');
  const bytes = Buffer.alloc(8 + opaque.length);
  bytes.writeUInt32LE(opaque.length, 0);
  bytes.writeInt32LE(type, 4);
  opaque.copy(bytes, 8);
  return bytes;
}

/** Mounts of a file system, by its device as the kernel keeps it (MKDEV), that a handle can be opened below. */
export function mountsOf(device: number): MountInfo[] {
  return readMountinfo(process.pid).filter(({ major, minor }) => ((major << 20) | minor) >>> 0 === device);
}

/** An O_PATH descriptor for the file, or undefined where the file system has none for it (any more), or knows no handles. */
export function openHandle(handle: FileHandle, device: number): OwnedFd | undefined {
  if (handle.bytes === 0 || handle.bytes > HANDLE_BYTES_MAX) return undefined;
  for (const { mountPoint } of mountsOf(device)) {
    using mount = openDirectory(mountPoint);
    if (mount === undefined) continue;
    const file = openBelow(mount.fd, handle);
    if (file !== undefined) return file;
  }
  return undefined;
}

function openDirectory(path: string): OwnedFd | undefined {
  try {
    return openPath(path, O_PATH | O_DIRECTORY);
  } catch {
    // Files can be mounted on, and mounts that are covered, or not ours to enter.
    return undefined;
  }
}

let isAlone = false;

function openBelow(mount: number, handle: FileHandle): OwnedFd | undefined {
  // The threads of a process share their working directory (clone(2) CLONE_FS); nothing else runs in the main one.
  if (!isAlone && !isMainThread) syscall('unshare', [CLONE_FS], 'a working directory of its own');
  isAlone = true;
  using before = openPath('.', O_PATH | O_DIRECTORY);
  syscall('fchdir', [mount], 'a mount');
  try {
    scratch.bytes.set(handleBytes(handle));
    const fd = attempt('open_by_handle_at', [AT_FDCWD, scratch.address, O_PATH | O_NOFOLLOW | O_CLOEXEC]);
    return fd < 0 ? undefined : new OwnedFd(fd);
  } finally {
    syscall('fchdir', [before.fd], 'the working directory');
  }
}
