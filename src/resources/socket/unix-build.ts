import * as S from '../../abi/socket.js';
import type { Holder } from '../contract.js';
import { duplicate, FIRST_SLOT } from '../description/holder.js';
import { restoreOwner } from '../description/owner.js';
import { perRestore } from '../description/state.js';
import { restoreOptions } from './options.js';
import { acceptAll, acceptByPassing, type Group, groupsOf, isEstablished } from './unix-accept.js';
import { callAs, sameCredentials } from './unix-as.js';
import type { Credentials } from './unix-extras.js';
import { bindOwn, bindPassing, connectTo, deadKey, fileKey, make, NEW } from './unix-making.js';
import {
  hasLostPeer,
  isListening,
  isPair,
  isWaiting,
  type Model,
  modelOf,
  type Socket,
  sameBytes,
} from './unix-model.js';

/**
 * All sockets of an image, on the holder's first tape: they are made, bound, listen and are connected, each by who did
 * that. Datagram sockets that are not a pair are connected later (unix-fill.ts), for what others have sent them could not
 * be sent any more (net/unix/af_unix.c unix_may_send).
 */
const built = perRestore(() => ({ done: false }));

export function build(holder: Holder): void {
  const progress = built(holder);
  if (progress.done) return;
  progress.done = true;
  const model = modelOf(holder);
  const own = model.sockets.filter(({ isOutside }) => !isOutside);
  for (const socket of own) takeInherited(socket, holder);
  const sockets = own.filter(({ inherited }) => inherited === undefined);
  const groups = groupsOf(sockets);
  const joined = new Set(groups.flatMap(({ members }) => members.flatMap(endsOf)));
  // Those that listen for the moment only come first: their names are needed again.
  for (const group of groups) if (group.listener === undefined) acceptByPassing(group, holder);
  for (const group of groups) if (group.listener !== undefined) listen(group, group.listener, model, holder);
  makePairs(
    sockets.filter((socket) => !joined.has(socket) && isFirstOfPair(socket)),
    holder,
  );
  for (const socket of sockets)
    if (isLone(socket)) bindOwn(socket, make(socket.key, socket.entry.type, holder), holder);
  for (const { id, entry } of sockets) restoreOwner(`file:${id}`, entry.fown, holder);
}

function endsOf({ accepted, client }: Group['members'][number]): Socket[] {
  return [accepted, client].flatMap((end) => end ?? []);
}

function takeInherited({ inherited, key }: Socket, holder: Holder): void {
  if (inherited !== undefined) holder.hold(key, holder.bring(duplicate(inherited)));
}

/* ---------- listening ---------- */

function listen(group: Group, socket: Socket, { byId }: Model, holder: Holder): void {
  const { tape } = holder;
  const { entry, extras } = socket;
  tape.about(`file ${socket.id} (Unix socket that listens)`);
  const fd = make(socket.key, entry.type, holder);
  bindOwn(socket, fd, holder);
  acceptAll(group, socket.key, holder);
  const known = (extras.waiting ?? []).flatMap((id) => byId.get(id) ?? []);
  const waiting = [...known, ...socket.sources.filter((source) => !known.includes(source))];
  const first = Math.max(entry.backlog, waiting.length);
  callAs(tape, extras.peer, (call) => call('listen', [fd, first]));
  // Those that wait to be accepted inherit options (from Linux 6.16).
  if (entry.opts !== undefined) restoreOptions(tape, fd, entry.opts);
  for (const client of waiting) {
    if (client.inherited !== undefined) continue;
    const end = make(client.key, client.entry.type, holder);
    bindOwn(client, end, holder);
    connectTo(end, { name: entry.name, file: fileKey(socket) }, client.extras.self, holder);
  }
  if (first !== entry.backlog) callAs(tape, extras.peer, (call) => call('listen', [fd, entry.backlog]));
}

/* ---------- pairs ---------- */

/** Of two that socketpair(2) makes, the one with the lower id, or the one whose other end is closed or has left. */
function isFirstOfPair(socket: Socket): boolean {
  const { peer } = socket;
  if (socket.isStream ? !isEstablished(socket) : !isDatagramPair(socket)) return false;
  return peer === undefined || !isPair(socket, peer) || socket.id < peer.id;
}

/**
 * Datagram sockets that were a pair: nobody else is connected to either, nor has sent to them. A peer without a name
 * cannot have been connected to by any other means; it may have left the pair since.
 */
export function isDatagramPair(socket: Socket): boolean {
  const { peer } = socket;
  if (socket.isStream || socket.isOutside || wasConnected(socket)) return false;
  if (peer === undefined) return hasLostPeer(socket) && hasOnlyFrom(socket, socket.extras.peerName);
  if (peer === socket || peer.isOutside || peer.inherited !== undefined) return false;
  if (!isPair(socket, peer)) return peer.entry.name.length === 0;
  return [socket, peer].every((one) => one.sources.length === 1 && hasOnlyFrom(one, one.peer?.entry.name));
}

/** By its peer's name: only pairs know who made them. */
function wasConnected({ peer, extras }: Socket): boolean {
  const name = peer === undefined ? extras.peerName : peer.entry.name;
  return extras.peer === undefined && name !== undefined && name.length > 0;
}

function hasOnlyFrom({ queue }: Socket, name: Uint8Array | undefined): boolean {
  return queue.every(({ from }) => from === undefined || sameBytes(from, name));
}

/** Not made together with another. */
function isLone(socket: Socket): boolean {
  if (isListening(socket) || isWaiting(socket) || isEstablished(socket)) return false;
  return !isDatagramPair(socket) && !socket.sources.some((source) => isDatagramPair(source));
}

const AT_ONCE = FIRST_SLOT / 2 - 2;

/** Several at once, for whoever made them. */
function makePairs(firsts: readonly Socket[], holder: Holder): void {
  const rest = [...firsts];
  while (rest.length > 0) {
    const who = rest[0]?.extras.peer;
    let count = 1;
    while (count < AT_ONCE && count < rest.length && sameCredentials(rest[count]?.extras.peer, who)) count++;
    makeBatch(rest.splice(0, count), who, holder);
  }
}

/** The lowest numbers are free, so it is known where the ends come to lie. */
function makeBatch(firsts: readonly Socket[], who: Credentials | undefined, holder: Holder): void {
  const { tape } = holder;
  tape.about(`files ${firsts.map(({ id }) => id).join(', ')} (pairs of Unix sockets)`);
  tape.call('close_range', [0, FIRST_SLOT - 1, 0]);
  const numbers = tape.space(8);
  callAs(tape, who, (call) => {
    for (const { entry } of firsts) call('socketpair', [S.AF_UNIX, entry.type | NEW, 0, numbers]);
  });
  firsts.forEach((socket, index) => {
    holder.hold(socket.key, index * 2);
    holder.hold(socket.peer?.key ?? deadKey(socket), index * 2 + 1);
  });
  for (const socket of firsts) settlePair(socket, holder);
}

function settlePair(socket: Socket, holder: Holder): void {
  const { peer, extras } = socket;
  bindOwn(socket, holder.slot(socket.key), holder);
  if (peer === undefined) {
    if (extras.peerName !== undefined) bindPassing(holder.slot(deadKey(socket)), extras.peerName, holder);
    return;
  }
  bindOwn(peer, holder.slot(peer.key), holder);
  if (isPair(socket, peer)) return;
  // That somebody leaves a peer without having read all it sent is told to that one, as ECONNRESET.
  if (extras.hasError === true)
    holder.tape.call('sendto', [holder.slot(socket.key), holder.tape.space(1), 1, S.MSG_DONTWAIT, 0, 0], 1);
  disconnect(holder.slot(peer.key), holder);
}

/** AF_UNSPEC: a datagram socket without a peer. */
export function disconnect(fd: number, { tape }: Holder): void {
  tape.call('connect', [fd, tape.space(new Uint8Array(2)), 2]);
}
