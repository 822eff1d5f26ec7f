import * as S from '../../abi/socket.js';
import type { Holder } from '../contract.js';
import { perRestore } from '../description/state.js';
import { callAs } from './unix-as.js';
import { type Address, addressOfSlot, bind, socketAddress } from './unix-bind.js';
import { allUnix } from './unix-diag.js';
import type { Credentials } from './unix-extras.js';
import { isListening, modelOf, type Socket } from './unix-model.js';
import { isPath } from './unix-name.js';

/** Single sockets, made by the holder and kept under the keys of their files. */
export const NEW = S.SOCK_CLOEXEC | S.SOCK_NONBLOCK;

/** Key of an O_PATH descriptor of the file that a socket is bound to. */
export function fileKey({ id }: Socket): string {
  return `unix:file:${id}`;
}

/** Under which key the other end of a socket is that nobody has any more; it is closed when it has sent. */
export function deadKey({ id }: Socket): string {
  return `unix:dead:${id}`;
}

export function addressOf({ entry, extras }: Socket): Address {
  return {
    name: entry.name,
    directory: entry.nameDir === '' ? undefined : entry.nameDir,
    isDeleted: entry.deleted,
    movedTo: extras.movedTo,
    perms: entry.filePerms,
  };
}

export function make(key: string, type: number, holder: Holder): number {
  holder.hold(key, holder.tape.call('socket', [S.AF_UNIX, type | NEW, 0]));
  return holder.slot(key);
}

export function bindOwn(socket: Socket, fd: number, holder: Holder): void {
  const isNeeded = isListening(socket) || !socket.isStream;
  bind(fd, addressOf(socket), isNeeded ? fileKey(socket) : undefined, holder);
}

/** Names of no file system that are, or will be, those of sockets that live. */
const livingNames = perRestore((holder) => {
  const names = [
    ...[...allUnix().values()].flatMap(({ name }) => name ?? []),
    ...modelOf(holder).sockets.map(({ entry }) => entry.name),
  ];
  return new Set(names.map((name) => Buffer.from(name).toString('latin1')));
});

/**
 * Bind to the name of a socket that is gone, whose file is not to be seen anywhere. A name of no file system that
 * somebody else has by now is left out: answers whether it has the name.
 */
export function bindPassing(fd: number, name: Uint8Array, holder: Holder, key?: string): boolean {
  if (!isPath(name) && livingNames(holder).has(Buffer.from(name).toString('latin1'))) return false;
  bind(
    fd,
    { name, directory: undefined, isDeleted: true, movedTo: undefined, perms: undefined },
    key,
    holder,
  );
  return true;
}

/** `file` is the key of the file that `name` is of, where it is a path. */
export function connectTo(
  fd: number,
  { name, file }: { readonly name: Uint8Array; readonly file: string },
  who: Credentials | undefined,
  holder: Holder,
): void {
  const { tape } = holder;
  const address = isPath(name) ? addressOfSlot(tape, holder.slot(file)) : socketAddress(tape, name);
  callAs(tape, who, (call) => call('connect', [fd, ...address]));
}
