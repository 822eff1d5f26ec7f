import type { ImageReader, ImageWriter } from '../../image/index.js';
import { readJson } from '../../image/json.js';

/**
 * stasis-unix.json: what CRIU's format has no field for, by the id of the socket's file. CRIU ignores it; without it (in
 * CRIU's own images) the senders of packets have no addresses, and all peers are who restores.
 */
export interface Credentials {
  /** As in the image; 0 where the process is of no namespace of the tree. */
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  readonly groups: readonly number[];
}

export interface PacketExtras {
  /** Address of the sender. */
  readonly from?: Uint8Array;
  /** SCM_CREDENTIALS. */
  readonly sender?: readonly [pid: number, uid: number, gid: number];
}

export interface UnixExtras {
  /** SO_PEERCRED; undefined where there is nobody. */
  readonly peer?: Credentials;
  /** Who connects, of a connection that nobody has accepted. */
  readonly self?: Credentials;
  /** Of a datagram socket: its peer was closed. Its state does not say so: whoever was connected to is ESTABLISHED too. */
  readonly hasLostPeer?: true;
  /** getpeername(2) where the peer was closed. */
  readonly peerName?: Uint8Array;
  /** SO_PEEK_OFF */
  readonly peekOffset?: number;
  /** ECONNRESET waits to be told. */
  readonly hasError?: true;
  /** Where the file of its name is, if not there. */
  readonly movedTo?: string;
  /** Files of those who wait to be accepted, in their order. */
  readonly waiting?: readonly number[];
  /** Of the packets of sk-queues.img for it, in their order. */
  readonly packets?: readonly PacketExtras[];
}

const FILE = 'stasis-unix.json';
const VERSION = 1;

export function writeExtras(extras: ReadonlyMap<number, UnixExtras>, writer: ImageWriter): void {
  const sockets = Object.fromEntries([...extras].filter(([, each]) => Object.keys(each).length > 0));
  if (Object.keys(sockets).length === 0) return;
  writer.writeBytes(FILE, [Buffer.from(JSON.stringify({ version: VERSION, sockets }, encodeBytes))]);
}

function encodeBytes(_key: string, value: unknown): unknown {
  return value instanceof Uint8Array ? Buffer.from(value).toString('latin1') : value;
}

export function readExtras(reader: ImageReader): ReadonlyMap<number, UnixExtras> {
  return readJson(reader, FILE, decodeUnixExtras) ?? new Map();
}

/** Throws Error saying which field of which socket is not as it should be; unknown fields are a later release's. */
function decodeUnixExtras(content: unknown): ReadonlyMap<number, UnixExtras> {
  const { version, sockets } = record(content, 'it');
  if (version !== VERSION) throw new Error(`is not of version ${VERSION}`);
  return new Map(
    Object.entries(record(sockets, 'sockets')).map(([id, socket]) => {
      if (!/^\d{1,10}$/.test(id)) throw new Error(`${id} is no file`);
      return [Number(id), decodeSocket(record(socket, `socket ${id}`), `socket ${id}`)];
    }),
  );
}

function decodeSocket(socket: Readonly<Record<string, unknown>>, what: string): UnixExtras {
  const { peer, self, hasLostPeer, peerName, peekOffset, hasError, movedTo, waiting, packets } = socket;
  return {
    ...(peer === undefined ? {} : { peer: credentials(peer, `${what}: peer`) }),
    ...(self === undefined ? {} : { self: credentials(self, `${what}: self`) }),
    ...(hasLostPeer === true ? { hasLostPeer } : {}),
    ...(peerName === undefined ? {} : { peerName: address(peerName, `${what}: peerName`) }),
    ...(peekOffset === undefined ? {} : { peekOffset: number(peekOffset, `${what}: peekOffset`) }),
    ...(hasError === true ? { hasError } : {}),
    ...(movedTo === undefined ? {} : { movedTo: text(movedTo, `${what}: movedTo`) }),
    ...(waiting === undefined ? {} : { waiting: numbers(waiting, `${what}: waiting`) }),
    ...(packets === undefined
      ? {}
      : { packets: list(packets, `${what}: packets`).map((each) => packet(each, what)) }),
  };
}

function packet(value: unknown, what: string): PacketExtras {
  const { from, sender } = record(value, `${what}: packet`);
  if (sender !== undefined && list(sender, what).length !== 3) throw new Error(`${what}: sender of a packet`);
  return {
    ...(from === undefined ? {} : { from: address(from, `${what}: from`) }),
    ...(sender === undefined
      ? {}
      : { sender: numbers(sender, `${what}: sender`) as [number, number, number] }),
  };
}

function credentials(value: unknown, what: string): Credentials {
  const { pid, uid, gid, groups } = record(value, what);
  return {
    pid: number(pid, what),
    uid: number(uid, what),
    gid: number(gid, what),
    groups: numbers(groups, what),
  };
}

function record(value: unknown, what: string): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new Error(`${what} is no record`);
  return value as Readonly<Record<string, unknown>>;
}

function list(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) throw new Error(`${what} is no list`);
  return value;
}

function number(value: unknown, what: string): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < -1 || value > 0xffff_ffff)
    throw new Error(`${what}: ${JSON.stringify(value)}`);
  return value;
}

function numbers(value: unknown, what: string): number[] {
  return list(value, what).map((each) => number(each, what));
}

function text(value: unknown, what: string): string {
  if (typeof value !== 'string' || value.length > 4096 || value.includes('\0'))
    throw new Error(`${what} is no path`);
  return value;
}

/** sun_path, at most 108 bytes. */
function address(value: unknown, what: string): Uint8Array {
  if (typeof value !== 'string' || value.length > 108) throw new Error(`${what} is no address`);
  return new Uint8Array(Buffer.from(value, 'latin1'));
}
