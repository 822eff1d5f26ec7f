import { statSync } from 'node:fs';
import { SIOCUNIXFILE } from '../../abi/ioctl.js';
import { encodeName } from '../../image/index.js';
import { OwnedFd } from '../../kernel/fd.js';
import { readLink } from '../../kernel/procfs/read.js';
import { syscall } from '../../kernel/syscall.js';

/**
 * Addresses of Unix sockets (unix(7)): a path, which bind(2) made a file at; or a name that begins with a zero byte and is
 * in no file system. The kernel keeps the bytes that bind was given, and the file, which may have been removed, renamed,
 * or be relative to a directory that nobody is in any more: SIOCUNIXFILE opens it.
 */
export interface BoundFile {
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** No name leads to it any more. */
  readonly isDeleted: boolean;
  /** The directory that a relative name was bound in. */
  readonly directory: string | undefined;
  /** Its path, where the name does not say it: it was renamed, or bound by way of "..". */
  readonly movedTo: string | undefined;
}

const DELETED = ' (deleted)';

export function isPath(name: Uint8Array): boolean {
  return name.length > 0 && name[0] !== 0;
}

/** The path of a name of the file system, whose bytes may be followed by zeros. */
export function pathOf(name: Uint8Array): Buffer {
  const end = name.indexOf(0);
  return Buffer.from(end < 0 ? name : name.subarray(0, end));
}

/** "@name" for those of no file system. */
export function printName(name: Uint8Array): string {
  return isPath(name) ? pathOf(name).toString() : Buffer.from(name).toString().replaceAll('\0', '@');
}

/** The file that `taken`, a descriptor of ours, is bound to. Throws SyscallError (EPERM without CAP_NET_ADMIN). */
export function boundFile(taken: number, name: Uint8Array): BoundFile {
  using file = new OwnedFd(syscall('ioctl', [taken, SIOCUNIXFILE, 0], printName(name)));
  const own = `/proc/self/fd/${file.fd}`;
  const stat = statSync(own, { bigint: true });
  const link = readLink(own);
  const found = statOf(link);
  const isDeleted = found === undefined || found.ino !== stat.ino || found.dev !== stat.dev;
  const path = isDeleted && link.endsWith(DELETED) ? link.slice(0, -DELETED.length) : link;
  const directory = directoryOf(
    pathOf(name).toString('latin1'),
    Buffer.from(encodeName(path)).toString('latin1'),
  );
  return {
    mode: Number(stat.mode),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    isDeleted,
    directory: isDeleted ? existing(directory.directory) : directory.directory,
    movedTo: directory.isPlain || isDeleted ? undefined : path,
  };
}

/** For a file that is not to be there, the directory does not matter, if only there is one. */
function existing(directory: string | undefined): string | undefined {
  if (directory === undefined || directory === '' || statOf(directory) !== undefined) return directory;
  return existing(directory.slice(0, directory.lastIndexOf('/'))) || '/';
}

function statOf(path: string): { ino: bigint; dev: bigint } | undefined {
  return statSync(Buffer.from(encodeName(path)), { bigint: true, throwIfNoEntry: false });
}

function directoryOf(
  name: string,
  path: string,
): { readonly directory: string | undefined; readonly isPlain: boolean } {
  if (name.startsWith('/')) return { directory: undefined, isPlain: name === path };
  const text = Buffer.from(path, 'latin1').toString();
  if (path.endsWith(`/${name}`)) {
    const directory = Buffer.from(path.slice(0, -name.length - 1), 'latin1').toString();
    return { directory: directory === '' ? '/' : directory, isPlain: true };
  }
  return { directory: text.slice(0, text.lastIndexOf('/')) || '/', isPlain: false };
}
