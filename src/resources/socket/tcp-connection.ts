import { POLLHUP, POLLRDHUP } from '../../abi/event.js';
import { F_SETFL, O_NONBLOCK } from '../../abi/fcntl.js';
import * as S from '../../abi/socket.js';
import { createMessage, fileOf, ImageError, type inet_sk_entry, type MessageOf } from '../../image/index.js';
import { words } from '../../kernel/words.js';
import type { Holder, Result, Tape } from '../contract.js';
import { perRestore } from '../description/state.js';
import { SETTABLE } from '../description/status-flags.js';
import { bindInet, connectInet, type InetAddress, imageAddress, sockaddrBytes } from './inet-address.js';
import { OwnedLock } from './lock.js';
import { removeCriuRules } from './lock-iptables.js';
import { isLockedByIptables } from './lock-restore.js';
import type { Connection } from './lock-table.js';
import { setBytes, setNumber } from './option-bytes.js';
import { TCP } from './tcp-diag.js';
import { type QueueBytes, queuesOf, type StreamFile, streamFile } from './tcp-queue.js';
import { awaitEvents, deliver, FLAG } from './tcp-segment.js';
import { OPTION, ownFinIn, peersFinIn, windowBytes } from './tcp-stream.js';

/**
 * A connection is made in repair mode: nothing is sent, sequence numbers are given, queues are filled by sends into them
 * (net/ipv4/tcp.c). What its peer had said last is said again by a segment of ours (tcp-segment.ts). It stays in repair
 * mode, and silent, until the tree goes on.
 */

/** Undefined for a closed socket that has none. */
export function streamOf({ id, ino, state }: inet_sk_entry, holder: Holder): StreamFile | undefined {
  const stream = streamFile(ino, holder);
  if (stream === undefined && state !== TCP.close)
    throw new ImageError(fileOf('tcp-stream', ino), `is missing, but file ${id} needs it`);
  return stream;
}

/** A connection being made. */
interface Making {
  readonly socket: inet_sk_entry;
  readonly connection: Connection;
  readonly message: MessageOf<'tcp-stream'>;
  readonly fd: Result;
  readonly tape: Tape;
}

export function openConnection(
  socket: inet_sk_entry,
  local: InetAddress,
  stream: StreamFile,
  fd: Result,
  holder: Holder,
): void {
  if (holder.options.refuseConnections === true)
    throw new ImageError(
      'files.img',
      `file ${socket.id} is a TCP connection: --tcp-established restores it, --tcp-close makes it a closed socket`,
    );
  const remote = imageAddress(socket.family, socket.dstPort, socket.dstAddr, socket.id);
  const { message } = stream;
  const making = { socket, connection: { local, remote }, message, fd, tape: holder.tape };
  rebuilt(holder).push(making.connection);
  if (socket.state === TCP.synSent) {
    openAttempt(making, holder);
    return;
  }
  const { incoming, outgoing } = queuesOf(socket, stream, holder);
  const unsent = Math.min(message.unsqLen, outgoing.length);
  beginRepair(making);
  negotiated(making);
  for (const option of [S.SO_SNDBUFFORCE, S.SO_RCVBUFFORCE])
    setNumber(making.tape, fd, S.SOL_SOCKET, option, ROOM);
  fill(S.TCP_RECV_QUEUE, incoming, incoming.length, making);
  fill(S.TCP_SEND_QUEUE, outgoing, outgoing.length - unsent, making);
  setWindow(making, true);
  halfClose(making, unsent > 0);
  setWindow(making, false);
  set(making, S.TCP_REPAIR_QUEUE, S.TCP_NO_QUEUE);
  resume(making, outgoing, unsent, holder);
}

function set({ tape, fd }: Making, option: number, value: number): void {
  setNumber(tape, fd, S.SOL_TCP, option, value);
}

/** Connected as it was before any data in the queues, and before anybody said that there is no more. */
function beginRepair(making: Making): void {
  const { socket, connection, message, tape, fd } = making;
  set(making, S.TCP_REPAIR, S.TCP_REPAIR_ON);
  set(making, S.TCP_REPAIR_QUEUE, S.TCP_RECV_QUEUE);
  set(making, S.TCP_QUEUE_SEQ, (message.inqSeq - peersFinIn(socket.state) - message.inqLen) | 0);
  set(making, S.TCP_REPAIR_QUEUE, S.TCP_SEND_QUEUE);
  set(making, S.TCP_QUEUE_SEQ, (message.outqSeq - ownFinIn(socket.state) - message.outqLen) | 0);
  bindInet(tape, fd, connection.local, socket.ipOpts?.freebind === true);
  connectInet(tape, fd, connection.remote);
}

/** Half of it doubled is as much as the kernel takes. */
const ROOM = 1 << 29;

const TCPOPT = { mss: 2, scale: 3, sack: 4, timestamps: 8 } as const;

/** What the two sides agreed on at first. */
function negotiated(making: Making): void {
  const { message, tape, fd } = making;
  const { optMask } = message;
  const pairs = [TCPOPT.mss, message.mssClamp];
  if ((optMask & OPTION.scale) !== 0) pairs.push(TCPOPT.scale, message.sndWscale | (message.rcvWscale << 16));
  if ((optMask & OPTION.sack) !== 0) pairs.push(TCPOPT.sack, 0);
  if ((optMask & OPTION.timestamps) !== 0) pairs.push(TCPOPT.timestamps, 0);
  setBytes(tape, fd, S.SOL_TCP, S.TCP_REPAIR_OPTIONS, words(pairs));
  if ((optMask & OPTION.timestamps) !== 0) set(making, S.TCP_TIMESTAMP, message.timestamp | 0);
}

function fill(queue: number, bytes: QueueBytes, length: number, making: Making): void {
  if (length === 0) return;
  set(making, S.TCP_REPAIR_QUEUE, queue);
  bytes.send(making.tape, making.fd, 0, length, 'all');
}

/** The window cannot begin behind what was received: not yet, that is, the peer's FIN. */
function setWindow({ socket, message, tape, fd }: Making, beforeFin: boolean): void {
  const hasFin = peersFinIn(socket.state) === 1;
  if (!beforeFin && !hasFin) return;
  const early = beforeFin && hasFin && message.rcvWup === message.inqSeq;
  const bytes = windowBytes(early ? { ...message, rcvWup: (message.inqSeq - 1) >>> 0 } : message);
  if (bytes !== undefined) setBytes(tape, fd, S.SOL_TCP, S.TCP_REPAIR_WINDOW, bytes);
}

/**
 * From ESTABLISHED to where either side has said its last, as far as nothing has to be sent for it: our own FIN goes out
 * when the tree goes on, once more if it was out already, for its acknowledgement may have been lost.
 */
function halfClose(making: Making, hasUnsent: boolean): void {
  const { socket, message } = making;
  const firstSent = message.outqSeq - ownFinIn(socket.state) - message.outqLen;
  switch (socket.state) {
    case TCP.closeWait:
    case TCP.lastAck:
      receiveFin(making, firstSent);
      return;
    case TCP.closing:
      if (!hasUnsent) shutInRepair(making);
      receiveFin(making, firstSent);
      return;
    case TCP.finWait2:
      shutInRepair(making);
      receive(making, FLAG.ack, message.inqSeq, message.outqSeq);
      return;
    default:
      return;
  }
}

/** With the send queue chosen the FIN counts as sent, as all that is put there does. */
function shutInRepair(making: Making): void {
  set(making, S.TCP_REPAIR_QUEUE, S.TCP_SEND_QUEUE);
  making.tape.call('shutdown', [making.fd, S.SHUT_WR]);
}

function receiveFin(making: Making, acknowledged: number): void {
  receive(making, FLAG.fin | FLAG.ack, making.message.inqSeq - 1, acknowledged);
  awaitEvents(making.tape, making.fd, POLLRDHUP);
}

function receive(
  { tape, connection, message }: Making,
  flags: number,
  sequence: number,
  acknowledged: number,
): void {
  const window = Object.hasOwn(message, 'sndWnd') ? message.sndWnd >>> message.sndWscale : 0xffff;
  deliver(tape, connection, { flags, sequence, acknowledged, window });
}

/** Whose FIN is sent when the tree goes on. */
function shutsLater(state: number, hasUnsent: boolean): boolean {
  return state === TCP.finWait1 || state === TCP.lastAck || (state === TCP.closing && hasUnsent);
}

/** When the tree is about to go on: repair mode ends, which asks the peer for news, and what was never sent is. */
function resume({ socket }: Making, outgoing: QueueBytes, unsent: number, holder: Holder): void {
  const { resume: tape } = holder;
  const { opts, id } = socket;
  const slot = holder.slot(`file:${id}`);
  tape.about(`connection of file ${id}`);
  setNumber(tape, slot, S.SOL_TCP, S.TCP_REPAIR, S.TCP_REPAIR_OFF);
  if (opts?.reuseaddr === true) setNumber(tape, slot, S.SOL_SOCKET, S.SO_REUSEADDR, 1);
  if (unsent > 0) {
    setNumber(tape, slot, S.SOL_SOCKET, S.SO_SNDBUFFORCE, ROOM);
    // Whose peer has reset it meanwhile sends nothing any more.
    outgoing.send(tape, slot, outgoing.length - unsent, unsent, 'any');
    if (opts !== undefined) setNumber(tape, slot, S.SOL_SOCKET, S.SO_SNDBUFFORCE, opts.soSndbuf >>> 1);
    if (opts !== undefined && Object.hasOwn(opts, 'soBufLock'))
      setNumber(tape, slot, S.SOL_SOCKET, S.SO_BUF_LOCK, opts.soBufLock);
  }
  if (shutsLater(socket.state, unsent > 0)) tape.call('shutdown', [slot, S.SHUT_WR], 'any');
}

/**
 * A connection that nobody has answered yet: tried again when the tree goes on, with the sequence number that the peer
 * may know already (tcp_v4_connect takes one that is there).
 */
function openAttempt(making: Making, holder: Holder): void {
  const { socket, connection, message, tape, fd } = making;
  set(making, S.TCP_REPAIR, S.TCP_REPAIR_ON);
  set(making, S.TCP_REPAIR_QUEUE, S.TCP_SEND_QUEUE);
  set(making, S.TCP_QUEUE_SEQ, (message.outqSeq - 1) | 0);
  bindInet(tape, fd, connection.local, socket.ipOpts?.freebind === true);
  set(making, S.TCP_REPAIR, S.TCP_REPAIR_OFF_NO_WP);
  const { resume: later } = holder;
  const slot = holder.slot(`file:${socket.id}`);
  later.about(`connection of file ${socket.id}`);
  if (socket.opts?.reuseaddr === true) setNumber(later, slot, S.SOL_SOCKET, S.SO_REUSEADDR, 1);
  const address = sockaddrBytes(connection.remote);
  later.call('fcntl', [slot, F_SETFL, O_NONBLOCK]);
  later.call('connect', [slot, later.space(address), address.length], 'any');
  later.call('fcntl', [slot, F_SETFL, socket.flags & SETTABLE]);
}

const NOTHING = { inqLen: 0, inqSeq: 0, outqLen: 0, outqSeq: 0, optMask: 0, sndWscale: 0, mssClamp: 0 };

/**
 * A connection that is over, with data that nobody has read or an error that nobody was told of: it is made anew, with a peer that never was, which resets
 * it. Nobody else can put data into a socket.
 */
export function openReset(
  socket: inet_sk_entry,
  local: InetAddress,
  stream: StreamFile | undefined,
  fd: Result,
  holder: Holder,
): void {
  const { tape } = holder;
  const file = stream ?? { message: createMessage('tcp-stream', NOTHING), offset: 0 };
  const { message } = file;
  const remote = { ...local, port: local.port === 1 ? 2 : 1 };
  const making = { socket, connection: { local, remote }, message, fd, tape };
  beginRepair(making);
  setNumber(tape, fd, S.SOL_SOCKET, S.SO_RCVBUFFORCE, ROOM);
  const { incoming } = queuesOf(socket, file, holder);
  fill(S.TCP_RECV_QUEUE, incoming, incoming.length, making);
  receive(making, FLAG.reset | FLAG.ack, message.inqSeq, message.outqSeq - message.outqLen);
  awaitEvents(tape, fd, POLLHUP);
  set(making, S.TCP_REPAIR, S.TCP_REPAIR_OFF_NO_WP);
}

/** Connections of this restore. They are silent from before the first is made. */
const rebuilt = perRestore((holder) => {
  const connections: Connection[] = [];
  let lock: OwnedLock | undefined;
  const open = (): void => {
    lock?.[Symbol.dispose]();
    lock = undefined;
  };
  holder.around({
    begin() {
      if (holder.options.networkLock !== 'skip') lock = OwnedLock.make(connections, undefined);
    },
    resume() {
      if (isLockedByIptables(holder)) removeCriuRules(connections);
      open();
    },
    end: open,
  });
  return connections;
});
