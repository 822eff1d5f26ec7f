import { F_SETFL } from '../../abi/fcntl.js';
import * as S from '../../abi/socket.js';
import { ImageError } from '../../image/index.js';
import type { Holder, Space } from '../contract.js';
import { perRestore } from '../description/state.js';
import { SETTABLE } from '../description/status-flags.js';
import { restoreEarlyMore, restoreLateMore } from './more-options.js';
import { setNumber } from './option-bytes.js';
import { restoreOptions } from './options.js';
import { mirrored } from './unix-accept.js';
import { addressOfSlot, socketAddress } from './unix-bind.js';
import { disconnect, isDatagramPair } from './unix-build.js';
import { STATE } from './unix-diag.js';
import { bindPassing, connectTo, deadKey, fileKey, make } from './unix-making.js';
import {
  hasLostPeer,
  isListening,
  isPair,
  modelOf,
  type QueuedPacket,
  type Socket,
  sameBytes,
} from './unix-model.js';
import { isPath, printName } from './unix-name.js';
import { send } from './unix-send.js';

/**
 * Queues, on the holder's second tape: every description is open, and every process exists that a packet may be from.
 * What a socket was sent by others than its peer comes before it is connected, the rest after it; then what would keep
 * anybody from sending: options, shutdown, the end of who is closed.
 */
const filled = perRestore(() => ({ done: false }));

export function fill(holder: Holder): void {
  const progress = filled(holder);
  if (progress.done) return;
  progress.done = true;
  const sockets = modelOf(holder).sockets.filter(
    ({ isOutside, inherited }) => !isOutside && inherited === undefined,
  );
  const later = new Map<Socket, readonly QueuedPacket[]>();
  for (const socket of sockets) later.set(socket, sendOfOthers(socket, holder));
  const connected = new Set<Socket>();
  for (const socket of sockets) connect(socket, connected, holder);
  for (const [socket, packets] of later) sendOfPeer(socket, packets, holder);
  for (const socket of sockets) endPeer(socket, holder);
  for (const socket of sockets) settle(socket, holder);
}

const roomy = perRestore(() => new Set<number>());

/** Room for all that is to be in flight from it; the size of the image is set in the end. */
function makeRoom(fd: number, holder: Holder): void {
  if (roomy(holder).has(fd)) return;
  roomy(holder).add(fd);
  setNumber(holder.tape, fd, S.SOL_SOCKET, S.SO_SNDBUFFORCE, 1 << 29);
}

function isFromPeer({ from }: QueuedPacket, { peer, extras }: Socket): boolean {
  const name = peer === undefined ? extras.peerName : peer.entry.name;
  return sameBytes(from, name);
}

/** What others than the peer have sent; answers what comes after that. */
function sendOfOthers(socket: Socket, holder: Holder): readonly QueuedPacket[] {
  const { queue } = socket;
  if (socket.isStream || isDatagramPair(socket)) return queue;
  const hasPeer = socket.peer !== undefined && !socket.peer.isOutside;
  let count = queue.length;
  if (hasPeer) while (count > 0 && isFromPeer(queue[count - 1] as QueuedPacket, socket)) count--;
  for (const packet of queue.slice(0, count)) sendTo(socket, packet, holder);
  return queue.slice(count);
}

function sendOfPeer(socket: Socket, packets: readonly QueuedPacket[], holder: Holder): void {
  if (packets.length === 0) return;
  const key = socket.peer === undefined ? deadKey(socket) : socket.peer.key;
  const fd = holder.slot(key);
  makeRoom(fd, holder);
  for (const packet of packets) send(fd, packet, addressFor(socket, holder), holder);
}

/** A stream, and what is connected to it, needs none. */
function addressFor(socket: Socket, holder: Holder): readonly [Space, number] | undefined {
  if (socket.isStream || socket.peer === undefined || socket.peer.peer === socket) return undefined;
  return nameOf(socket, holder);
}

function nameOf(socket: Socket, holder: Holder): readonly [Space, number] {
  const { name } = socket.entry;
  if (name.length === 0)
    throw new ImageError(
      'sk-queues.img',
      `socket ${socket.id} has no name, and packets of others than its peer`,
    );
  return isPath(name)
    ? addressOfSlot(holder.tape, holder.slot(fileKey(socket)))
    : socketAddress(holder.tape, name);
}

/* ---------- senders ---------- */

/** Sockets that only send: one an address, or without one. */
const passing = perRestore(() => new Map<string, string>());

function sendTo(socket: Socket, packet: QueuedPacket, holder: Holder): void {
  const only = socket.entry.name.length === 0 ? connectedSource(socket) : undefined;
  const fd = holder.slot(only?.key ?? senderOf(packet, holder));
  makeRoom(fd, holder);
  send(fd, packet, only === undefined ? nameOf(socket, holder) : undefined, holder);
}

/** Nobody else can send to a socket without a name. */
function connectedSource(socket: Socket): Socket | undefined {
  return socket.sources.find((source) => isDatagramPair(source));
}

function senderOf({ from }: QueuedPacket, holder: Holder): string {
  const named = from === undefined ? undefined : namedSocket(from, holder);
  if (named !== undefined) return named.key;
  const name = from === undefined ? '' : Buffer.from(from).toString('latin1');
  const known = passing(holder).get(name);
  if (known !== undefined) return known;
  const { tape } = holder;
  const key = `unix:sender:${passing(holder).size}`;
  passing(holder).set(name, key);
  tape.about(`a sender of datagrams${from === undefined ? '' : `, ${printName(from)}`}`);
  const fd = make(key, S.SOCK_DGRAM, holder);
  if (from !== undefined && !bindPassing(fd, from, holder)) throw new SenderInUseError(from);
  return key;
}

function namedSocket(name: Uint8Array, holder: Holder): Socket | undefined {
  const named = modelOf(holder).sockets.filter(
    ({ isStream, isOutside, inherited, entry }) =>
      !isStream && !isOutside && inherited === undefined && sameBytes(entry.name, name),
  );
  return named.find(({ entry }) => !entry.deleted) ?? named[0];
}

/* ---------- datagram peers ---------- */

/** Whoever is connected to it is so before it is connected elsewhere. */
function connect(socket: Socket, connected: Set<Socket>, holder: Holder): void {
  const { peer } = socket;
  if (connected.has(socket)) return;
  connected.add(socket);
  if (socket.isStream || isDatagramPair(socket)) return;
  for (const source of socket.sources) if (source !== peer) connect(source, connected, holder);
  if (peer === undefined) {
    if (hasLostPeer(socket)) connectToDead(socket, holder);
    return;
  }
  // Those connected to one end of a pair come before that end is.
  if (isPair(socket, peer) && peer !== socket)
    for (const source of peer.sources) if (source !== socket) connect(source, connected, holder);
  holder.tape.about(`peer of file ${socket.id}`);
  if (peer.isOutside) connectOutside(socket, peer, holder);
  else connectTo(holder.slot(socket.key), { name: peer.entry.name, file: fileKey(peer) }, undefined, holder);
}

/** Others have sent to it before it was connected to a socket that had a name, and is closed by now. */
function connectToDead(socket: Socket, holder: Holder): void {
  const name = socket.extras.peerName ?? Buffer.from('/closed\0');
  const file = `${fileKey(socket)}:peer`;
  const dead = make(deadKey(socket), S.SOCK_DGRAM, holder);
  if (bindPassing(dead, name, holder, file))
    connectTo(holder.slot(socket.key), { name, file }, undefined, holder);
}

function connectOutside({ id, entry, key }: Socket, peer: Socket, holder: Holder): void {
  const { extUnixSk, external } = holder.options;
  const isAllowed = extUnixSk === true || external.includes(`unix[${peer.entry.ino}]`);
  if (!isAllowed)
    throw new ImageError(
      'files.img',
      `socket ${id} (socket:[${entry.ino}]) is connected to one outside of the tree, ${printName(peer.entry.name)}: allow that by --ext-unix-sk, or give it by --inherit-fd fd[N]:socket:[${entry.ino}]`,
    );
  holder.tape.call('connect', [holder.slot(key), ...socketAddress(holder.tape, peer.entry.name)]);
}

/* ---------- the end ---------- */

/** The other end that nobody has any more. That it is closed with something unread is told as ECONNRESET. */
function endPeer(socket: Socket, holder: Holder): void {
  const { tape } = holder;
  if (!hasLostPeer(socket)) return;
  const dead = holder.slot(deadKey(socket));
  if (socket.extras.hasError === true) {
    tape.call('sendto', [holder.slot(socket.key), tape.space(1), 1, S.MSG_DONTWAIT, 0, 0], 1);
    // The end of a stream tells; a datagram socket does when it leaves its peer.
    if (!socket.isStream) disconnect(dead, holder);
  }
  tape.call('close', [dead]);
}

function settle(socket: Socket, holder: Holder): void {
  const { tape } = holder;
  const { entry, extras } = socket;
  const fd = holder.slot(socket.key);
  tape.about(`options of file ${socket.id}`);
  if (entry.opts !== undefined && !isListening(socket)) restoreOptions(tape, fd, entry.opts);
  restoreEarlyMore(holder, socket.id, fd);
  restoreLateMore(holder, socket.id, fd);
  tape.call('fcntl', [fd, F_SETFL, entry.flags & SETTABLE]);
  const shutdown = shutdownOf(socket);
  if (shutdown !== 0) tape.call('shutdown', [fd, shutdown - 1]);
  if (extras.peekOffset !== undefined && extras.peekOffset >= 0)
    setNumber(tape, fd, S.SOL_SOCKET, S.SO_PEEK_OFF, extras.peekOffset);
}

/** Of two ends of a stream, only what both say: what one does is the other's too, unless it was before they met. */
function shutdownOf({ isStream, entry, peer }: Socket): number {
  if (!isStream) return entry.shutdown;
  if (peer === undefined) return entry.state === STATE.established ? 0 : entry.shutdown;
  if (isListening(peer)) return entry.shutdown;
  return entry.shutdown & mirrored(peer.entry.shutdown);
}

/** The address of who sent something that is still unread belongs to somebody else by now. */
class SenderInUseError extends Error {
  override readonly name = 'SenderInUseError';
  readonly code = 'EADDRINUSE';

  constructor(name: Uint8Array) {
    super(`the address ${printName(name)}, of a sender of datagrams that are not read yet, is in use here`);
  }
}
