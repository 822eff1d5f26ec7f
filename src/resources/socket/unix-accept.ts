import type { Holder } from '../contract.js';
import { callAs, sameCredentials } from './unix-as.js';
import { type Address, bind } from './unix-bind.js';
import type { Credentials } from './unix-extras.js';
import { addressOf, bindOwn, bindPassing, connectTo, deadKey, fileKey, make, NEW } from './unix-making.js';
import { isConnected, isListening, isWaiting, type Socket, sameBytes } from './unix-model.js';
import { isPath } from './unix-name.js';

/**
 * Connected sockets with an address were accepted: an accepted socket has the address of the one that listened (and its
 * file), whether or not that still does. So they are accepted again, from the one that listens under their name, or from one
 * that does so for this.
 */
export interface Acceptance {
  /** One of the two may be closed. */
  readonly accepted: Socket | undefined;
  readonly client: Socket | undefined;
}

export interface Group {
  readonly type: number;
  readonly address: Address;
  /** Key of the address's file. */
  readonly file: string;
  readonly members: Acceptance[];
  readonly listener: Socket | undefined;
}

/** More than may wait anywhere. */
const BACKLOG_MAX = 4096;

export function isEstablished(socket: Socket): boolean {
  return socket.isStream && isConnected(socket) && !isWaiting(socket);
}

function hasName({ entry }: Socket): boolean {
  return entry.name.length > 0;
}

function keyOf({ entry: { type, name, nameDir, deleted } }: Socket): string {
  return `${type}:${deleted}:${nameDir}:${Buffer.from(name).toString('latin1')}`;
}

export function groupsOf(sockets: readonly Socket[]): Group[] {
  const groups = new Map<string, Group>();
  for (const socket of sockets) if (isListening(socket)) groups.set(keyOf(socket), groupFor(socket, socket));
  const established = sockets.filter(isEstablished);
  const counts = new Map<string, number>();
  for (const socket of established) counts.set(keyOf(socket), (counts.get(keyOf(socket)) ?? 0) + 1);
  const weightOf = (socket: Socket): number =>
    (groups.get(keyOf(socket))?.listener === undefined ? 0 : 1 << 24) + (counts.get(keyOf(socket)) ?? 0);
  for (const socket of established) {
    const { peer } = socket;
    if (!hasName(socket)) continue;
    // Of two that have a name, one is the client, which was bound by itself.
    if (peer !== undefined && hasName(peer)) {
      const [mine, theirs] = [weightOf(socket), weightOf(peer)];
      if (theirs > mine || (theirs === mine && peer.id < socket.id)) continue;
    }
    const group = groups.get(keyOf(socket)) ?? groupFor(socket, undefined);
    groups.set(keyOf(socket), group);
    group.members.push({ accepted: socket, client: peer });
  }
  for (const socket of established) if (!hasName(socket)) joinDead(socket, groups);
  return [...groups.values()];
}

function groupFor(socket: Socket, listener: Socket | undefined): Group {
  const { type } = socket.entry;
  return { type, address: addressOf(socket), file: fileKey(socket), members: [], listener };
}

/** A client whose accepted end was closed still knows its name. */
function joinDead(client: Socket, groups: Map<string, Group>): void {
  const { peerName } = client.extras;
  if (client.peer !== undefined || peerName === undefined) return;
  const same = ({ address, type }: Group) => type === client.entry.type && sameBytes(address.name, peerName);
  let group = [...groups.values()].find(same);
  if (group === undefined) {
    const address = {
      name: peerName,
      directory: undefined,
      isDeleted: true,
      movedTo: undefined,
      perms: undefined,
    };
    group = {
      type: client.entry.type,
      address,
      file: `${fileKey(client)}:peer`,
      members: [],
      listener: undefined,
    };
    groups.set(`dead:${client.id}`, group);
  }
  group.members.push({ accepted: undefined, client });
}

/** By a socket that listens for the moment. */
export function acceptByPassing(group: Group, holder: Holder): void {
  const { tape } = holder;
  const key = `passing:${group.file}`;
  const fd = make(key, group.type, holder);
  if (isPath(group.address.name)) bind(fd, group.address, group.file, holder);
  else bind(fd, group.address, undefined, holder);
  acceptAll(group, key, holder);
  tape.call('close', [holder.slot(key)]);
}

export function acceptAll(group: Group, listenerKey: string, holder: Holder): void {
  const { tape } = holder;
  let listening: { by: Credentials | undefined } | undefined;
  for (const { accepted, client } of group.members) {
    const by = client?.extras.peer;
    if (listening === undefined || !sameCredentials(listening.by, by)) {
      callAs(tape, by, (call) => call('listen', [holder.slot(listenerKey), BACKLOG_MAX]));
      listening = { by };
    }
    const fd = makeClient({ accepted, client }, group, holder);
    connectTo(fd, { name: group.address.name, file: group.file }, accepted?.extras.peer, holder);
    const key = accepted?.key ?? (client === undefined ? undefined : deadKey(client));
    if (key !== undefined) holder.hold(key, tape.call('accept4', [holder.slot(listenerKey), 0, 0, NEW]));
  }
}

function makeClient({ accepted, client }: Acceptance, { type }: Group, holder: Holder): number {
  const key = client?.key ?? (accepted === undefined ? 'unix:nobody' : deadKey(accepted));
  const fd = make(key, type, holder);
  if (client !== undefined) {
    bindOwn(client, fd, holder);
    // What was shut down before it was connected shows at this end only.
    const alone = accepted === undefined ? 0 : client.entry.shutdown & ~mirrored(accepted.entry.shutdown);
    if (alone !== 0) holder.tape.call('shutdown', [fd, alone - 1]);
  } else if (accepted?.extras.peerName !== undefined) bindPassing(fd, accepted.extras.peerName, holder);
  return fd;
}

/** RCV_SHUTDOWN 1 and SEND_SHUTDOWN 2: what one end reads the other writes. */
export function mirrored(shutdown: number): number {
  return ((shutdown & 1) << 1) | (shutdown >> 1);
}
