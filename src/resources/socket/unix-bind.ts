import { randomBytes } from 'node:crypto';
import { lstatSync } from 'node:fs';
import { tmpdir } from 'node:os';
import {
  AT_FDCWD,
  AT_REMOVEDIR,
  AT_SYMLINK_NOFOLLOW,
  O_CLOEXEC,
  O_DIRECTORY,
  O_PATH,
} from '../../abi/fcntl.js';
import { AF_UNIX } from '../../abi/socket.js';
import { encodeName, type file_perms_entry } from '../../image/index.js';
import { cString } from '../../kernel/c-string.js';
import type { Holder, Result, Space, Tape } from '../contract.js';
import { kernelDevice } from '../description/calls.js';
import { perRestore } from '../description/state.js';
import { allUnix } from './unix-diag.js';
import { isPath, pathOf } from './unix-name.js';

/**
 * bind(2) at restore. The kernel keeps the bytes it is given as the address, so a socket gets its name by being bound by
 * exactly that name. Where the file is not to be there (it was removed), or somewhere else (it was renamed), the holder
 * does it below a directory of its own, as its root: nothing else that has the name is touched, for no moment.
 */
export interface Address {
  readonly name: Uint8Array;
  /** Of a relative name. */
  readonly directory: string | undefined;
  readonly isDeleted: boolean;
  readonly movedTo: string | undefined;
  readonly perms: file_perms_entry | undefined;
}

type Fd = Result | number;

/** struct sockaddr_un of these bytes, and its length. */
export function socketAddress(tape: Tape, name: Uint8Array): readonly [Space, number] {
  const bytes = new Uint8Array(2 + name.length);
  new DataView(bytes.buffer).setUint16(0, AF_UNIX, true);
  bytes.set(name, 2);
  return [tape.space(bytes), bytes.length];
}

/** The file of a bound socket, by the holder's descriptor of it. */
export function addressOfSlot(tape: Tape, slot: number): readonly [Space, number] {
  return socketAddress(tape, cString(`/proc/self/fd/${slot}`));
}

/** `fileKey` is to hold an O_PATH descriptor of the file, by which it is connected to. */
export function bind(fd: Fd, address: Address, fileKey: string | undefined, holder: Holder): void {
  const { tape } = holder;
  const { name } = address;
  if (name.length === 0) return;
  if (!isPath(name)) {
    tape.call('bind', [fd, ...socketAddress(tape, name)]);
    return;
  }
  if (address.isDeleted || address.movedTo !== undefined) bindStaged(fd, address, fileKey, holder);
  else bindInPlace(fd, address, fileKey, holder);
}

function bindInPlace(fd: Fd, address: Address, fileKey: string | undefined, holder: Holder): void {
  const { tape } = holder;
  const path = pathOf(address.name);
  const { directory } = address;
  const { cwd } = placesOf(holder);
  if (directory !== undefined) tape.call('chdir', [tape.string(encodeName(directory))]);
  const full = directory === undefined ? path : Buffer.concat([Buffer.from(`${directory}/`), path]);
  // What is left of the dead one, which would be in the way. Anything but a socket is, and one that somebody has open:
  // the error of bind(2) says so.
  if (isLeftOver(full, holder)) tape.call('unlink', [tape.string(path)], 'any');
  bindFile(fd, address, fileKey, holder);
  if (directory !== undefined) tape.call('fchdir', [holder.slot(cwd)]);
}

/** Files that sockets of this network namespace are bound to. */
const bound = perRestore(
  () => new Set([...allUnix().values()].flatMap(({ file }) => (file === undefined ? [] : [keyOf(file)]))),
);

function keyOf({ inode, device }: { inode: number; device: number }): string {
  return `${device}:${inode}`;
}

function isLeftOver(path: Uint8Array, holder: Holder): boolean {
  const stat = lstatSync(Buffer.from(path), { bigint: true, throwIfNoEntry: false });
  if (stat?.isSocket() !== true) return false;
  const inode = Number(BigInt.asUintN(32, stat.ino));
  return !bound(holder).has(keyOf({ inode, device: kernelDevice(stat.dev) }));
}

/** Where the current directory and root are what the name means. */
function bindFile(fd: Fd, { name, perms }: Address, fileKey: string | undefined, holder: Holder): void {
  const { tape } = holder;
  const path = tape.string(pathOf(name));
  tape.call('bind', [fd, ...socketAddress(tape, name)]);
  if (perms !== undefined) {
    tape.call('fchownat', [AT_FDCWD, path, perms.uid, perms.gid, AT_SYMLINK_NOFOLLOW]);
    tape.call('fchmodat', [AT_FDCWD, path, perms.mode & 0o7777]);
  }
  if (fileKey !== undefined) holder.hold(fileKey, tape.call('open', [path, O_PATH | O_CLOEXEC, 0]));
}

const placesOf = perRestore((holder) => {
  const places = { cwd: 'unix:cwd', root: 'unix:root' } as const;
  const { tape } = holder;
  for (const [path, key] of [
    ['.', places.cwd],
    ['/', places.root],
  ] as const)
    holder.hold(key, tape.call('open', [tape.string(path), O_PATH | O_DIRECTORY | O_CLOEXEC, 0]));
  return places;
});

function bindStaged(fd: Fd, address: Address, fileKey: string | undefined, holder: Holder): void {
  const { tape } = holder;
  const { cwd, root } = placesOf(holder);
  const { movedTo } = address;
  const beside = movedTo === undefined ? tmpdir() : movedTo.slice(0, movedTo.lastIndexOf('/')) || '/';
  const stage = `${beside.replace(/\/$/, '')}/.stasis-unix-${randomBytes(6).toString('hex')}`;
  holder.leaves(stage);
  const { start, directories, file } = stagePath(pathOf(address.name).toString('latin1'));
  const stageSpace = tape.string(encodeName(stage));
  tape.call('mkdir', [stageSpace, 0o700]);
  tape.call('chdir', [stageSpace]);
  tape.call('chroot', [tape.string('.')]);
  for (const directory of directories) tape.call('mkdir', [latin1(directory, tape), 0o700]);
  tape.call('chdir', [latin1(start, tape)]);
  bindFile(fd, address, fileKey, holder);
  tape.call('fchdir', [holder.slot(root)]);
  tape.call('chroot', [tape.string('.')]);
  const there = Buffer.concat([Buffer.from(encodeName(stage)), Buffer.from(file, 'latin1')]);
  if (movedTo === undefined) tape.call('unlink', [tape.string(there)]);
  else tape.call('rename', [tape.string(there), tape.string(encodeName(movedTo))]);
  for (const directory of [...directories].reverse()) {
    const path = Buffer.concat([Buffer.from(encodeName(stage)), Buffer.from(directory, 'latin1')]);
    tape.call('unlinkat', [AT_FDCWD, tape.string(path), AT_REMOVEDIR]);
  }
  tape.call('unlinkat', [AT_FDCWD, stageSpace, AT_REMOVEDIR]);
  tape.call('fchdir', [holder.slot(cwd)]);
}

function latin1(path: string, tape: Tape): Space {
  return tape.string(Buffer.from(path, 'latin1'));
}

/**
 * What has to be below an empty root for a name to be bound: directories in the order of their making, the one to be in,
 * and where the file is then. Relative names begin so deep that every ".." has somewhere to lead to.
 */
function stagePath(name: string): {
  readonly start: string;
  readonly directories: readonly string[];
  readonly file: string;
} {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  const last = parts.pop() ?? '';
  const stack: string[] = [];
  const directories = new Set<string>();
  const enter = (part: string): void => {
    stack.push(part);
    directories.add(`/${stack.join('/')}`);
  };
  if (!name.startsWith('/')) for (const part of parts) if (part === '..') enter('d');
  const start = `/${stack.join('/')}`;
  for (const part of parts) {
    if (part === '..') stack.pop();
    else enter(part);
  }
  return { start, directories: [...directories], file: `/${[...stack, last].join('/')}` };
}
