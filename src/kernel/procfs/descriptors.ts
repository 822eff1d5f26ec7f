/** /proc/PID/fd: proc_pid_fd(5). Links' names, and what stat says of the files behind them. */
import { SyscallError } from '../errors.js';
import { type FileStat, statPath } from '../stat.js';
import { encodeBytes } from './bytes.js';
import { unlessHidden, unlessVanished } from './error.js';
import { type Fdinfo, readFdinfo } from './fdinfo.js';
import { attempt, readLink, readNumbers, taskPath, type Where } from './read.js';

export interface Descriptor {
  readonly fd: number;
  /** Path, or `pipe:[INO]`, `socket:[INO]`, `anon_inode:[eventfd]` …; as d_path gives it, ' (deleted)' included. */
  readonly link: string;
  /** Of the file, as fstat in the task. */
  readonly stat: FileStat;
  readonly info: Fdinfo;
}

/** Open descriptors, ascending. */
export function listDescriptors(pid: number, where: Where = {}): number[] {
  return readNumbers(taskPath(pid, 'fd', where));
}

export function readDescriptor(pid: number, fd: number, where: Where = {}): Descriptor {
  const path = taskPath(pid, `fd/${fd}`, where);
  return {
    fd,
    link: readLink(path),
    stat: statAt(path),
    info: readFdinfo(pid, fd, where),
  };
}

/** All descriptors; those that are closed while we look are left out. */
export function readDescriptors(pid: number, where: Where = {}): Descriptor[] {
  const descriptors: Descriptor[] = [];
  for (const fd of listDescriptors(pid, where)) {
    const descriptor = unlessVanished(() => readDescriptor(pid, fd, where));
    if (descriptor !== undefined) descriptors.push(descriptor);
  }
  return descriptors;
}

/** Of all processes but some, as far as they let themselves be looked at: who has what open, only /proc says. */
export function* allDescriptors(
  except: ReadonlySet<number> = new Set(),
): Generator<[pid: number, fds: number[]]> {
  for (const pid of readNumbers('/proc'))
    if (!except.has(pid)) yield [pid, unlessHidden(() => listDescriptors(pid)) ?? []];
}

/** Is it open on this file? Not if it was closed meanwhile, or may not be looked at. */
export function isOpenOn(pid: number, fd: number, { dev, ino }: Pick<FileStat, 'dev' | 'ino'>): boolean {
  const stat = unlessHidden(() => statAt(taskPath(pid, `fd/${fd}`)));
  return stat?.ino === ino && stat.dev === dev;
}

/** What a magic link leads to. */
export function statAt(path: string): FileStat {
  return attempt(path, 'cannot stat', () => {
    const stat = statPath(encodeBytes(path), true);
    if (typeof stat === 'number') throw new SyscallError('statx', -stat, path);
    return stat;
  });
}
