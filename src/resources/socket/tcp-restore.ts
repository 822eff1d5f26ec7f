import * as S from '../../abi/socket.js';
import { ImageError, type inet_sk_entry, type MessageOf } from '../../image/index.js';
import type { Holder, Result, Tape } from '../contract.js';
import { restoreOwner } from '../description/owner.js';
import { perRestore } from '../description/state.js';
import { setStatusFlags } from '../description/status-flags.js';
import { bindInet, connectInet, type InetAddress, imageAddress, isAny } from './inet-address.js';
import { restoreIpOptions } from './ip-options.js';
import { lastingTable, OwnedLock, unlock } from './lock.js';
import type { Connection } from './lock-table.js';
import { restoreEarlyMore, restoreLateMore } from './more-options.js';
import { numbers, setBytes, setNumber } from './option-bytes.js';
import { restoreEarlyOptions, restoreLateOptions } from './options.js';
import { TCP } from './tcp-diag.js';
import { isConnected } from './tcp-silence.js';
import { OPTION, ownFinIn, peersFinIn, windowBytes } from './tcp-stream.js';

/**
 * TCP sockets on the holder's tape. A connection is made in repair mode: nothing is sent, sequence numbers are given,
 * queues are filled by sends into them (net/ipv4/tcp.c). It stays in repair mode, and silent, until the tree goes on.
 */
export function openTcp(socket: inet_sk_entry, holder: Holder): Result {
  const { tape, options } = holder;
  const { family, id } = socket;
  const fd = tape.call('socket', [family, S.SOCK_STREAM | S.SOCK_CLOEXEC, S.IPPROTO_TCP]);
  restoreEarlyMore(holder, id, fd);
  const local = imageAddress(family, socket.srcPort, socket.srcAddr, id);
  const stream =
    isConnected(socket.state) && options.tcpClose !== true ? streamOf(socket, holder) : undefined;
  if (Object.hasOwn(socket, 'v6only')) setNumber(tape, fd, S.SOL_IPV6, S.IPV6_V6ONLY, Number(socket.v6only));
  if (socket.ipOpts !== undefined) restoreIpOptions(tape, fd, family, socket.ipOpts);
  if (socket.opts !== undefined) restoreEarlyOptions(tape, fd, socket.opts);
  if (stream === undefined) openQuiet(socket, local, fd, tape);
  else openConnection(socket, { local, remote: remoteOf(socket) }, stream, fd, holder);
  restoreTcpOptions(socket, stream?.message, fd, tape);
  if (socket.opts !== undefined) restoreLateOptions(tape, fd, socket.opts);
  restoreLateMore(holder, id, fd);
  setStatusFlags(tape, fd, socket.flags);
  restoreOwner(`file:${id}`, socket.fown, holder);
  return fd;
}

/** Sockets of one port may be bound in any order if all allow it; what each wants comes when all are. */
function openQuiet(socket: inet_sk_entry, local: InetAddress, fd: Result, tape: Tape): void {
  if (local.port === 0 && isAny(local.words)) return;
  if (isConnected(socket.state)) return;
  setNumber(tape, fd, S.SOL_SOCKET, S.SO_REUSEADDR, 1);
  bindInet(tape, fd, local, socket.ipOpts?.freebind === true);
  if (socket.state === TCP.listen) tape.call('listen', [fd, socket.backlog]);
}

/** When all are bound: the last words on SO_REUSEADDR. Connections lose it once more with repair mode. */
export function settleTcp(socket: inet_sk_entry, holder: Holder): void {
  if (isConnected(socket.state) && holder.options.tcpClose !== true) return;
  const reuse = socket.opts?.reuseaddr === true ? 1 : 0;
  setNumber(holder.tape, holder.slot(`file:${socket.id}`), S.SOL_SOCKET, S.SO_REUSEADDR, reuse);
}

interface StreamRecord {
  readonly message: MessageOf<'tcp-stream'>;
  readonly raw: readonly Uint8Array[];
}

function streamOf({ id, ino }: inet_sk_entry, { reader }: Holder): StreamRecord {
  const [record] = reader.records('tcp-stream', ino);
  if (record === undefined)
    throw new ImageError(`tcp-stream-${ino.toString(16)}.img`, `is empty, but file ${id} needs it`);
  return record;
}

function remoteOf({ family, dstPort, dstAddr, id }: inet_sk_entry): InetAddress {
  return imageAddress(family, dstPort, dstAddr, id);
}

function openConnection(
  socket: inet_sk_entry,
  connection: Connection,
  stream: StreamRecord,
  fd: Result,
  holder: Holder,
): void {
  const { tape } = holder;
  const { message, raw } = stream;
  if (holder.options.refuseConnections === true)
    throw new ImageError(
      'files.img',
      `file ${socket.id} is a TCP connection: --tcp-established restores it, --tcp-close makes it a closed socket`,
    );
  const [incoming = new Uint8Array(), outgoing = new Uint8Array()] = raw;
  rebuilt(holder).push(connection);
  if (!SUPPORTED.has(socket.state))
    throw new ImageError('files.img', `file ${socket.id}: TCP state ${socket.state} cannot be restored yet`);
  const set = (option: number, value: number): void => setNumber(tape, fd, S.SOL_TCP, option, value);
  set(S.TCP_REPAIR, S.TCP_REPAIR_ON);
  set(S.TCP_REPAIR_QUEUE, S.TCP_RECV_QUEUE);
  set(S.TCP_QUEUE_SEQ, (message.inqSeq - peersFinIn(socket.state) - message.inqLen) | 0);
  set(S.TCP_REPAIR_QUEUE, S.TCP_SEND_QUEUE);
  set(S.TCP_QUEUE_SEQ, (message.outqSeq - ownFinIn(socket.state) - message.outqLen) | 0);
  bindInet(tape, fd, connection.local, socket.ipOpts?.freebind === true);
  connectInet(tape, fd, connection.remote);
  negotiated(message, fd, tape);
  for (const option of [S.SO_SNDBUFFORCE, S.SO_RCVBUFFORCE]) setNumber(tape, fd, S.SOL_SOCKET, option, ROOM);
  fill(incoming, S.TCP_RECV_QUEUE, fd, tape);
  const unsent = Math.min(message.unsqLen, outgoing.length);
  fill(outgoing.subarray(0, outgoing.length - unsent), S.TCP_SEND_QUEUE, fd, tape);
  const window = windowBytes(message);
  if (window !== undefined) setBytes(tape, fd, S.SOL_TCP, S.TCP_REPAIR_WINDOW, window);
  set(S.TCP_REPAIR_QUEUE, S.TCP_NO_QUEUE);
  resume(socket, outgoing.subarray(outgoing.length - unsent), holder);
}

const SUPPORTED = new Set<number>([TCP.established]);

/** Half of it doubled is as much as the kernel takes. */
const ROOM = 1 << 29;

const TCPOPT = { mss: 2, scale: 3, sack: 4, timestamps: 8 } as const;

/** What the two sides agreed on at first. */
function negotiated(message: MessageOf<'tcp-stream'>, fd: Result, tape: Tape): void {
  const { optMask } = message;
  const pairs = [TCPOPT.mss, message.mssClamp];
  if ((optMask & OPTION.scale) !== 0) pairs.push(TCPOPT.scale, message.sndWscale | (message.rcvWscale << 16));
  if ((optMask & OPTION.sack) !== 0) pairs.push(TCPOPT.sack, 0);
  if ((optMask & OPTION.timestamps) !== 0) pairs.push(TCPOPT.timestamps, 0);
  setBytes(tape, fd, S.SOL_TCP, S.TCP_REPAIR_OPTIONS, numbers(pairs));
  if ((optMask & OPTION.timestamps) !== 0)
    setNumber(tape, fd, S.SOL_TCP, S.TCP_TIMESTAMP, message.timestamp | 0);
}

/** The kernel makes one buffer of each send into the receive queue, which has to be small enough to be had. */
const CHUNK = 32 * 1024;

function fill(bytes: Uint8Array, queue: number, fd: Result, tape: Tape): void {
  if (bytes.length === 0) return;
  setNumber(tape, fd, S.SOL_TCP, S.TCP_REPAIR_QUEUE, queue);
  for (let at = 0; at < bytes.length; at += CHUNK) {
    const part = bytes.subarray(at, at + CHUNK);
    tape.call('sendto', [fd, tape.space(part), part.length, S.MSG_DONTWAIT, 0, 0], part.length);
  }
}

function restoreTcpOptions(
  socket: inet_sk_entry,
  stream: MessageOf<'tcp-stream'> | undefined,
  fd: Result,
  tape: Tape,
): void {
  const { tcpOpts } = socket;
  const set = (option: number, value: number): void => setNumber(tape, fd, S.SOL_TCP, option, value);
  if (tcpOpts !== undefined) {
    if (Object.hasOwn(tcpOpts, 'keepcnt')) set(S.TCP_KEEPCNT, tcpOpts.keepcnt);
    if (Object.hasOwn(tcpOpts, 'keepidle')) set(S.TCP_KEEPIDLE, tcpOpts.keepidle);
    if (Object.hasOwn(tcpOpts, 'keepintvl')) set(S.TCP_KEEPINTVL, tcpOpts.keepintvl);
  }
  if (tcpOpts?.nodelay === true || stream?.nodelay === true) set(S.TCP_NODELAY, 1);
  if (tcpOpts?.cork === true || stream?.cork === true) set(S.TCP_CORK, 1);
}

/** When the tree is about to go on: repair mode ends, which asks the peer for news, and what was never sent is. */
function resume(socket: inet_sk_entry, unsent: Uint8Array, holder: Holder): void {
  const { resume: tape } = holder;
  const slot = holder.slot(`file:${socket.id}`);
  tape.about(`connection of file ${socket.id}`);
  setNumber(tape, slot, S.SOL_TCP, S.TCP_REPAIR, S.TCP_REPAIR_OFF);
  if (socket.opts?.reuseaddr === true) setNumber(tape, slot, S.SOL_SOCKET, S.SO_REUSEADDR, 1);
  if (unsent.length === 0) return;
  const flags = S.MSG_DONTWAIT | S.MSG_NOSIGNAL;
  setNumber(tape, slot, S.SOL_SOCKET, S.SO_SNDBUFFORCE, ROOM);
  // Whose peer has reset it meanwhile sends nothing any more.
  for (let at = 0; at < unsent.length; at += CHUNK) {
    const part = unsent.subarray(at, at + CHUNK);
    tape.call('sendto', [slot, tape.space(part), part.length, flags, 0, 0], 'any');
  }
  const { opts } = socket;
  if (opts === undefined) return;
  setNumber(tape, slot, S.SOL_SOCKET, S.SO_SNDBUFFORCE, opts.soSndbuf >>> 1);
  if (Object.hasOwn(opts, 'soBufLock')) setNumber(tape, slot, S.SOL_SOCKET, S.SO_BUF_LOCK, opts.soBufLock);
}

/** Connections of this restore. They are silent from before the first is made. */
const rebuilt = perRestore((holder) => {
  const connections: Connection[] = [];
  const runId = holder.reader.readOptional('inventory')?.[0]?.dumpCriuRunId ?? '';
  let lock: OwnedLock | undefined;
  holder.around({
    begin() {
      if (holder.options.networkLock !== 'skip') lock = OwnedLock.make(connections, undefined);
    },
    resume() {
      if (runId !== '') unlock(lastingTable(runId));
      lock?.[Symbol.dispose]();
      lock = undefined;
    },
    end() {
      lock?.[Symbol.dispose]();
    },
  });
  return connections;
});
