import * as S from '../../abi/socket.js';
import { ImageError, type unix_sk_entry } from '../../image/index.js';
import type { Holder } from '../contract.js';
import { perRestore } from '../description/state.js';
import { USK_EXTERN } from '../description/used.js';
import { STATE } from './unix-diag.js';
import { type PacketExtras, readExtras, type UnixExtras } from './unix-extras.js';

/** The Unix sockets of an image, and what they are to each other. */
export interface QueuedPacket extends PacketExtras {
  readonly bytes: Uint8Array;
  /** Files in flight. */
  readonly rights: readonly number[];
}

export interface Socket {
  readonly entry: unix_sk_entry;
  readonly id: number;
  readonly key: string;
  readonly extras: UnixExtras;
  readonly queue: readonly QueuedPacket[];
  readonly isStream: boolean;
  readonly isOutside: boolean;
  /** It stands in for all there is of it: `--inherit-fd`. */
  readonly inherited: number | undefined;
  peer: Socket | undefined;
  /** Those whose peer it is. */
  readonly sources: Socket[];
}

export interface Model {
  readonly sockets: readonly Socket[];
  readonly byId: ReadonlyMap<number, Socket>;
}

export const modelOf = perRestore((holder): Model => {
  const queues = queuesOf(holder);
  const extras = readExtras(holder.reader);
  const sockets: Socket[] = [];
  for (const { usk } of holder.reader.read('files')) {
    if (usk === undefined) continue;
    const own = extras.get(usk.id) ?? {};
    const packets = queues.get(usk.id) ?? [];
    sockets.push({
      entry: usk,
      id: usk.id,
      key: `file:${usk.id}`,
      extras: own,
      queue: packets.map((packet, index) => ({ ...packet, ...own.packets?.[index] })),
      isStream: usk.type !== S.SOCK_DGRAM,
      isOutside: (usk.uflags & USK_EXTERN) !== 0,
      inherited: inheritedFd(usk, holder),
      peer: undefined,
      sources: [],
    });
  }
  const byInode = new Map(sockets.map((socket) => [socket.entry.ino, socket]));
  for (const socket of sockets) relate(socket, byInode);
  return { sockets, byId: new Map(sockets.map((socket) => [socket.id, socket])) };
});

function inheritedFd({ ino, peer }: unix_sk_entry, { options }: Holder): number | undefined {
  for (const key of [`socket:[${ino}]`, `unix[${ino}]`, ...(peer === 0 ? [] : [`unix[${peer}]`])]) {
    const fd = options.inheritFds.get(key);
    if (fd !== undefined) return fd;
  }
  return undefined;
}

function relate(socket: Socket, byInode: ReadonlyMap<number, Socket>): void {
  const { peer } = socket.entry;
  if (peer === 0 || socket.inherited !== undefined || socket.isOutside) return;
  const found = byInode.get(peer);
  if (found === undefined)
    throw new ImageError(
      'files.img',
      `socket ${socket.id} is connected to inode ${peer}, which the image has not`,
    );
  if (found.isOutside && socket.isStream)
    throw new ImageError(
      'files.img',
      `socket ${socket.id} is connected to one outside of the tree: it is to be given by --inherit-fd fd[N]:socket:[${socket.entry.ino}]`,
    );
  socket.peer = found;
  found.sources.push(socket);
}

const SCM_TYPES = new Set([S.SCM_RIGHTS]);

function queuesOf({ reader }: Holder): Map<number, Omit<QueuedPacket, keyof PacketExtras>[]> {
  const queues = new Map<number, Omit<QueuedPacket, keyof PacketExtras>[]>();
  for (const { message, raw } of reader.recordsOptional('sk-queues') ?? []) {
    const unknown = message.scm.find(({ type }) => !SCM_TYPES.has(type));
    if (unknown !== undefined)
      throw new ImageError('sk-queues.img', `control messages of type ${unknown.type} cannot be sent`);
    const packet = {
      bytes: raw[0] ?? new Uint8Array(),
      rights: message.scm.flatMap(({ rights }) => rights),
    };
    const queue = queues.get(message.idFor);
    if (queue === undefined) queues.set(message.idFor, [packet]);
    else queue.push(packet);
  }
  return queues;
}

export function isListening({ entry }: Socket): boolean {
  return entry.state === STATE.listen;
}

export function isConnected({ entry }: Socket): boolean {
  return entry.state === STATE.established;
}

/** Connected to each other. */
export function isPair(one: Socket, other: Socket): boolean {
  return one.peer === other && other.peer === one;
}

/** Its peer was closed. Images without extras do not say so of datagram sockets; but who else has sent to one without a name? */
export function hasLostPeer(socket: Socket): boolean {
  const { isStream, peer, sources, extras, entry, queue } = socket;
  if (peer !== undefined) return false;
  if (isStream) return isConnected(socket);
  return extras.hasLostPeer === true || (entry.name.length === 0 && sources.length === 0 && queue.length > 0);
}

/** Waits to be accepted by its peer. */
export function isWaiting({ isStream, peer }: Socket): boolean {
  return isStream && peer !== undefined && isListening(peer);
}

export function sameBytes(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  return Buffer.compare(a ?? new Uint8Array(), b ?? new Uint8Array()) === 0;
}
