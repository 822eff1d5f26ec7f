import { clearField, create } from '@bufbuild/protobuf';
import { POLLERR, POLLRDHUP } from '../../abi/event.js';
import { O_CLOEXEC } from '../../abi/fcntl.js';
import { SIOCINQ } from '../../abi/ioctl.js';
import * as S from '../../abi/socket.js';
import {
  createMessage,
  ImageError,
  type inet_sk_entry,
  inet_sk_entrySchema,
  type MessageOf,
  sk_opts_entrySchema,
  type tcp_opts_entry,
  tcp_opts_entrySchema,
} from '../../image/index.js';
import { OwnedFd } from '../../kernel/fd.js';
import { pollNow } from '../../kernel/poll.js';
import { syscall } from '../../kernel/syscall.js';
import type { Descriptor, DumpContext, FileKind, file_entry } from '../contract.js';
import { refuseNow } from '../description/described.js';
import { identify } from '../description/identify.js';
import { dumpOwner } from '../description/owner.js';
import { perDump } from '../description/state.js';
import { FD_TYPE } from '../description/types.js';
import { type InetAddress, localAddress, noWords, peerAddress } from './inet-address.js';
import { dumpIpOptions } from './ip-options.js';
import { dumpMoreOptions } from './more-options.js';
import { getNumber } from './option-bytes.js';
import { dumpOptions, optionProblem } from './options.js';
import { peekQueue, Room, setTcp, sizeBy, tcpInfo } from './tcp-calls.js';
import {
  checkSockets,
  diagsByInode,
  isMptcp,
  mptcpProblem,
  PROTOCOLS,
  problemOf,
  refuseLeaving,
  refuseWaiting,
} from './tcp-check.js';
import { TCP, type TcpDiag, tcpDiags } from './tcp-diag.js';
import { dumpExtra, type TcpExtra, writeExtras } from './tcp-extra.js';
import { openTcp, settleTcp } from './tcp-restore.js';
import { checkShared } from './tcp-shared.js';
import { byInode, isConnected, repairedSocket, silence } from './tcp-silence.js';
import { readStream, StreamError } from './tcp-stream.js';

/**
 * tcp(7) over IPv4 and IPv6. A socket is a listener, a connection, or neither (CLOSE). Addresses, states and queues of
 * listeners are in sock_diag(7); connections are read in repair mode while they are silent (tcp-silence.ts).
 */
export const tcp: FileKind = {
  name: 'TCP socket',
  support:
    'listeners (MPTCP too); connections in every state with queues, sequence numbers, windows and options, by --tcp-established; refused: MD5 signatures, TLS and other upper layers (TCP_ULP), established MPTCP',
  member: 'isk',

  // A raw socket may have the protocol too.
  restores: ({ isk }) => isk !== undefined && PROTOCOLS.has(isk.proto) && isk.type === S.SOCK_STREAM,

  recognise: (descriptor) => {
    const identity = identify(descriptor);
    if (identity === undefined || !PROTOCOLS.has(identity.protocol)) return false;
    if (identity.type !== S.SOCK_STREAM) return false;
    return identity.family === S.AF_INET || identity.family === S.AF_INET6;
  },

  checkAll: checkSockets,
  checkTree: checkShared,

  begin(descriptors, context) {
    const all = tcpDiags();
    const diags = diagsByInode(all);
    for (const descriptor of byInode(descriptors.filter(isMptcp)).values()) {
      const problem = mptcpProblem(descriptor);
      if (problem !== undefined) refuseNow(context, descriptor, ...problem);
    }
    for (const descriptor of descriptors.slice(0, 1)) refuseLeaving(all, descriptor, context);
    const found = [...byInode(descriptors)].flatMap(([inode, descriptor]) => {
      const diag = diags.get(inode);
      return diag === undefined ? [] : [{ descriptor, diag }];
    });
    const ports = found.filter(({ diag }) => diag.state === TCP.listen).map(({ diag }) => diag.local.port);
    for (const { descriptor, diag } of found) {
      const problem = problemOf(diag, context.options);
      if (problem !== undefined) refuseNow(context, descriptor, ...problem);
      if (diag.state === TCP.listen) refuseWaiting({ descriptor, diag, all, ports }, context);
      known(context).set(diag.inode, diag);
    }
    if (context.options.tcpClose === true) context.inventory.tcpClose = true;
    else
      silence(
        found.filter(({ diag }) => isConnected(diag.state)),
        context,
      );
  },

  dump(descriptor, id, taken, context) {
    const problem = optionProblem(taken);
    if (problem !== undefined) refuseNow(context, descriptor, problem);
    return createMessage('files', {
      type: FD_TYPE.isk,
      id,
      isk: describe(descriptor, id, taken, context),
    });
  },

  write(context) {
    writeExtras(extras(context), context.writer);
  },

  open: (entry, holder) => openTcp(socketOf(entry), holder),
  connect: (entry, holder) => settleTcp(socketOf(entry), holder),
};

/** What sock_diag said of sockets of this dump. */
const known = perDump(() => new Map<number, TcpDiag>());

const extras = perDump(() => new Map<number, TcpExtra>());

function describe(descriptor: Descriptor, id: number, taken: number, context: DumpContext): inet_sk_entry {
  const identity = identify(descriptor);
  if (identity === undefined) return refuseNow(context, descriptor, 'it is no socket any more');
  const { family, inode, protocol } = identity;
  dumpMoreOptions(taken, id, identity, descriptor, context);
  const repaired = repairedSocket(inode, context);
  const diag = known(context).get(inode);
  const opts = dumpOptions(taken);
  // MPTCP has no such option (net/mptcp/sockopt.c).
  if (isMptcp(descriptor)) clearField(opts, sk_opts_entrySchema.field.soBufLock);
  if (repaired !== undefined) opts.reuseaddr = repaired.reuse !== 0;
  const stream = repaired === undefined ? undefined : dumpStream(descriptor, taken, inode, context);
  const { state: now, backlog } = tcpInfo(taken);
  if (diag === undefined && isConnected(now) && !isMptcp(descriptor))
    refuseNow(context, descriptor, 'it is connected, but the kernel has not named it among all connections');
  const state = stream ?? (now === TCP.listen ? TCP.listen : TCP.close);
  const isCut = context.options.tcpClose === true && diag !== undefined && isConnected(diag.state);
  const shutdown = isCut ? SHUT_BOTH : state === TCP.close ? shutdownOf(taken) : ownShutdown(state, diag);
  const local = localAddress(taken);
  const extra = dumpExtra(taken, protocol, (look) => withFresh(family, protocol, look), context);
  const isOver = state === TCP.close && shutdown !== 0;
  extras(context).set(
    id,
    isOver && !isCut ? { ...extra, ...dumpRemains(taken, inode, local, context) } : extra,
  );
  const peer = stream === undefined ? undefined : (peerAddress(taken) ?? diag?.remote);
  return create(inet_sk_entrySchema, {
    id,
    ino: inode,
    family,
    type: S.SOCK_STREAM,
    proto: protocol,
    state,
    // Who was connected remembers his address, but has it no more.
    srcPort: isOver ? 0 : local.port,
    srcAddr: isOver ? noWords(family) : [...local.words],
    dstPort: peer?.port ?? 0,
    dstAddr: [...(peer?.words ?? noWords(family))],
    flags: descriptor.info.info.flags & ~O_CLOEXEC,
    backlog: state === TCP.listen ? backlog : 0,
    fown: dumpOwner(descriptor, taken, context),
    opts,
    ipOpts: dumpIpOptions(taken, family),
    tcpOpts: dumpTcpOptions(taken),
    ...(shutdown === 0 ? {} : { shutdown }),
    ...(family === S.AF_INET6 ? { v6only: getNumber(taken, S.SOL_IPV6, S.IPV6_V6ONLY) === 1 } : {}),
  });
}

function withFresh<T>(family: number, protocol: number, look: (fd: number) => T): T {
  using socket = new OwnedFd(syscall('socket', [family, S.SOCK_STREAM | S.SOCK_CLOEXEC, protocol]));
  return look(socket.fd);
}

const RCV_SHUTDOWN = 1;
const SHUT_BOTH = 3;

/**
 * Of a socket in CLOSE: what is over is so in both directions (net/ipv4/tcp.c tcp_done); poll(2) shows it for one of
 * them.
 */
function shutdownOf(fd: number): number {
  return (pollNow(fd, POLLRDHUP) & POLLRDHUP) === 0 ? 0 : SHUT_BOTH;
}

/** shutdown(2) SHUT_RD, which the state does not tell: in the others the peer has said that nothing more comes. */
function ownShutdown(state: number, diag: TcpDiag | undefined): number {
  const isOwn = state === TCP.established || state === TCP.finWait1 || state === TCP.finWait2;
  return isOwn ? (diag?.shutdown ?? 0) & RCV_SHUTDOWN : 0;
}

/** What is left of a connection that is over: unread data, and an error that nobody was told of. */
function dumpRemains(fd: number, inode: number, local: InetAddress, context: DumpContext): Partial<TcpExtra> {
  // It was still connected when repair mode began, which asks which queue is meant.
  if (repairedSocket(inode, context) !== undefined) setTcp(fd, S.TCP_REPAIR_QUEUE, S.TCP_RECV_QUEUE);
  using room = new Room();
  const bytes = peekQueue(fd, sizeBy(fd, SIOCINQ), room);
  if (bytes.length > 0) {
    const message = createMessage('tcp-stream', {
      inqLen: bytes.length,
      inqSeq: bytes.length,
      outqLen: 0,
      outqSeq: 0,
      optMask: 0,
      sndWscale: 0,
      mssClamp: MSS,
    });
    save(inode, message, [bytes, new Uint8Array()], context);
  }
  const hasError = (pollNow(fd, 0) & POLLERR) !== 0;
  const { port, words } = local;
  return { local: { port, words: [...words] }, ...(hasError ? { hasError } : {}) };
}

const MSS = 1460;

/** Answers the state that was found. */
function dumpStream(descriptor: Descriptor, taken: number, inode: number, context: DumpContext): number {
  if (!isConnected(tcpInfo(taken).state)) return TCP.close;
  try {
    const { state, entry, queues } = readStream(taken);
    save(inode, entry, queues, context);
    return state;
  } catch (error) {
    if (error instanceof StreamError) return refuseNow(context, descriptor, error.message);
    throw error;
  }
}

/** Queues that are kept in memory until the tree goes on, in bytes; all others are written at once. */
const KEPT_MAX = 8 << 20;

const kept = perDump(() => ({ bytes: 0 }));

function save(
  inode: number,
  message: MessageOf<'tcp-stream'>,
  queues: readonly [Uint8Array, Uint8Array],
  context: DumpContext,
): void {
  const { writer } = context;
  const size = queues[0].length + queues[1].length;
  const held = kept(context);
  if (held.bytes + size > KEPT_MAX) {
    writer.writeNow('tcp-stream', inode, [{ message, raw: queues }]);
    return;
  }
  held.bytes += size;
  writer.writeRecords('tcp-stream', inode, [{ message, raw: queues.map((bytes) => bytes.slice()) }]);
}

function dumpTcpOptions(fd: number): tcp_opts_entry {
  const number = (name: string, option: number): Record<string, number> => {
    const value = getNumber(fd, S.SOL_TCP, option);
    return value === undefined ? {} : { [name]: value };
  };
  return create(tcp_opts_entrySchema, {
    ...number('keepcnt', S.TCP_KEEPCNT),
    ...number('keepidle', S.TCP_KEEPIDLE),
    ...number('keepintvl', S.TCP_KEEPINTVL),
    ...(getNumber(fd, S.SOL_TCP, S.TCP_CORK) === 1 ? { cork: true } : {}),
    ...(getNumber(fd, S.SOL_TCP, S.TCP_NODELAY) === 1 ? { nodelay: true } : {}),
  });
}

function socketOf(entry: file_entry): inet_sk_entry {
  if (entry.isk === undefined) throw new ImageError('files.img', `file ${entry.id} is no socket of IP`);
  return entry.isk;
}
