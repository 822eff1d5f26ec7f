import { SIOCINQ, SIOCOUTQ, SIOCOUTQNSD } from '../../abi/ioctl.js';
import * as S from '../../abi/socket.js';
import { createMessage, type MessageOf } from '../../image/index.js';
import { words } from '../../kernel/words.js';
import { getBytes } from './option-bytes.js';
import { getTcp, peekQueue, Room, setTcp, sizeBy, tcpInfo } from './tcp-calls.js';
import { TCP } from './tcp-diag.js';

/** A connection as tcp-stream-INO.img has it. */
export interface Stream {
  readonly state: number;
  readonly entry: MessageOf<'tcp-stream'>;
  /** Received and not read; sent and not acknowledged, or not sent yet. Good until the next is read. */
  readonly queues: readonly [incoming: Uint8Array, outgoing: Uint8Array];
}

/** TCPI_OPT_TIMESTAMPS. */
export const OPTION = { timestamps: 1, sack: 2, scale: 4 } as const;

/** The peer has said that nothing more comes: its FIN has a place in the sequence, behind all data. */
const HAS_PEERS_FIN = new Set<number>([TCP.closeWait, TCP.lastAck, TCP.closing]);
/** Ours has one, and was not acknowledged. */
const HAS_OWN_FIN = new Set<number>([TCP.finWait1, TCP.lastAck, TCP.closing]);

export function peersFinIn(state: number): number {
  return HAS_PEERS_FIN.has(state) ? 1 : 0;
}

/** Our FIN counts in the sequence from when it was sent, also when it was acknowledged. */
export function ownFinIn(state: number): number {
  return HAS_OWN_FIN.has(state) || state === TCP.finWait2 ? 1 : 0;
}

/**
 * Read a connection in repair mode. A segment that passed the lock a moment before it was there may still arrive: then
 * what was read does not fit together, and is read again.
 */
export function readStream(fd: number): Stream {
  for (;;) {
    const { state } = tcpInfo(fd);
    const incoming = readIncoming(fd, state);
    const outgoing = readOutgoing(fd, state);
    const entry = describe(fd, incoming, outgoing);
    setTcp(fd, S.TCP_REPAIR_QUEUE, S.TCP_RECV_QUEUE);
    const isSame = getTcp(fd, S.TCP_QUEUE_SEQ) >>> 0 === entry.inqSeq;
    setTcp(fd, S.TCP_REPAIR_QUEUE, S.TCP_NO_QUEUE);
    if (isSame && tcpInfo(fd).state === state)
      return { state, entry, queues: [incoming.bytes, outgoing.bytes] };
  }
}

const rooms = { incoming: new Room(), outgoing: new Room() };

interface Incoming {
  readonly sequence: number;
  readonly bytes: Uint8Array;
}

function readIncoming(fd: number, state: number): Incoming {
  setTcp(fd, S.TCP_REPAIR_QUEUE, S.TCP_RECV_QUEUE);
  const sequence = getTcp(fd, S.TCP_QUEUE_SEQ) >>> 0;
  const length = state === TCP.synSent ? 0 : sizeBy(fd, SIOCINQ);
  const bytes = peekQueue(fd, length, rooms.incoming);
  if (bytes.length !== length) throw new StreamError(`${bytes.length} of ${length} bytes of it can be read`);
  return { sequence, bytes };
}

interface Outgoing extends Incoming {
  /** Bytes at the end that were never sent. */
  readonly unsent: number;
}

function readOutgoing(fd: number, state: number): Outgoing {
  setTcp(fd, S.TCP_REPAIR_QUEUE, S.TCP_SEND_QUEUE);
  const sequence = getTcp(fd, S.TCP_QUEUE_SEQ) >>> 0;
  if (state === TCP.synSent || state === TCP.finWait2)
    return { sequence, bytes: new Uint8Array(), unsent: 0 };
  const fin = HAS_OWN_FIN.has(state) ? 1 : 0;
  const length = Math.max(0, sizeBy(fd, SIOCOUTQ) - fin);
  const unsent = Math.max(0, sizeBy(fd, SIOCOUTQNSD) - fin);
  const bytes = peekQueue(fd, length, rooms.outgoing);
  if (bytes.length !== length)
    throw new StreamError(`${bytes.length} of ${length} bytes to be sent can be read`);
  return { sequence, bytes, unsent: Math.min(unsent, length) };
}

/** The queues of a connection cannot be read. */
export class StreamError extends Error {
  override readonly name = 'StreamError';
}

function describe(fd: number, incoming: Incoming, outgoing: Outgoing): MessageOf<'tcp-stream'> {
  const { options, sendScale, receiveScale } = tcpInfo(fd);
  return createMessage('tcp-stream', {
    inqLen: incoming.bytes.length,
    inqSeq: incoming.sequence,
    outqLen: outgoing.bytes.length,
    outqSeq: outgoing.sequence,
    unsqLen: outgoing.unsent,
    optMask: options & (OPTION.timestamps | OPTION.sack | OPTION.scale),
    sndWscale: sendScale,
    rcvWscale: receiveScale,
    // In repair mode this is what the peer said at first, not what is left of it.
    mssClamp: getTcp(fd, S.TCP_MAXSEG),
    ...((options & OPTION.timestamps) === 0 ? {} : { timestamp: getTcp(fd, S.TCP_TIMESTAMP) >>> 0 }),
    ...(getTcp(fd, S.TCP_CORK) === 0 ? {} : { cork: true }),
    ...(getTcp(fd, S.TCP_NODELAY) === 0 ? {} : { nodelay: true }),
    ...windowOf(fd),
  });
}

/** struct tcp_repair_window, in the order of the image's fields. */
const WINDOW_FIELDS = ['sndWl1', 'sndWnd', 'maxWindow', 'rcvWnd', 'rcvWup'] as const;
type Window = Record<(typeof WINDOW_FIELDS)[number], number>;

function windowOf(fd: number): Partial<Window> {
  const bytes = getBytes(fd, S.SOL_TCP, S.TCP_REPAIR_WINDOW, WINDOW_FIELDS.length * 4);
  if (bytes === undefined) return {};
  const view = new DataView(bytes.buffer);
  return Object.fromEntries(WINDOW_FIELDS.map((field, index) => [field, view.getUint32(index * 4, true)]));
}

/** What TCP_REPAIR_WINDOW takes; undefined for images that have none. */
export function windowBytes(entry: MessageOf<'tcp-stream'>): Uint8Array | undefined {
  if (!Object.hasOwn(entry, 'sndWnd')) return undefined;
  return words(WINDOW_FIELDS.map((field) => entry[field]));
}
