import { create } from '@bufbuild/protobuf';
import { O_CLOEXEC } from '../../abi/fcntl.js';
import * as S from '../../abi/socket.js';
import {
  createMessage,
  ImageError,
  type inet_sk_entry,
  inet_sk_entrySchema,
  type tcp_opts_entry,
  tcp_opts_entrySchema,
} from '../../image/index.js';
import type { Descriptor, DumpContext, DumpOptions, FileKind, file_entry } from '../contract.js';
import { refusalOf, refuseNow } from '../description/described.js';
import { dumpOwner } from '../description/owner.js';
import { perDump } from '../description/state.js';
import { FD_TYPE } from '../description/types.js';
import { identify } from './identify.js';
import { localAddress, noWords, peerAddress } from './inet-address.js';
import { dumpIpOptions } from './ip-options.js';
import { dumpMoreOptions } from './more-options.js';
import { getNumber } from './option-bytes.js';
import { dumpOptions, optionProblem } from './options.js';
import { getTcp, tcpInfo } from './tcp-calls.js';
import { TCP, type TcpDiag, tcpDiags } from './tcp-diag.js';
import { openTcp, settleTcp } from './tcp-restore.js';
import { byInode, isConnected, repairedSocket, silence } from './tcp-silence.js';
import { readStream, StreamError } from './tcp-stream.js';

/**
 * tcp(7) over IPv4 and IPv6. A socket is a listener, a connection, or neither (CLOSE). Addresses, states and queues of
 * listeners are in sock_diag(7); connections are read in repair mode while they are silent (tcp-silence.ts).
 */
export const tcp: FileKind = {
  name: 'TCP socket',
  support: 'listeners; connections with queues, sequence numbers, windows and options, by --tcp-established',
  member: 'isk',

  // A raw socket may have the protocol too.
  restores: ({ isk }) => isk?.proto === S.IPPROTO_TCP && isk.type === S.SOCK_STREAM,

  recognise: (descriptor) => {
    const identity = identify(descriptor);
    return (
      identity?.protocol === S.IPPROTO_TCP &&
      identity.type === S.SOCK_STREAM &&
      (identity.family === S.AF_INET || identity.family === S.AF_INET6)
    );
  },

  checkAll(descriptors, refuse, options) {
    const diags = diagsByInode(tcpDiags());
    for (const [inode, descriptor] of byInode(descriptors)) {
      const diag = diags.get(inode);
      if (diag === undefined) continue;
      const problem = problemOf(diag, options);
      if (problem !== undefined) refuse(refusalOf(descriptor, ...problem));
    }
  },

  begin(descriptors, context) {
    const all = tcpDiags();
    const diags = diagsByInode(all);
    const found = [...byInode(descriptors)].flatMap(([inode, descriptor]) => {
      const diag = diags.get(inode);
      return diag === undefined ? [] : [{ descriptor, diag }];
    });
    for (const { descriptor, diag } of found) {
      const problem = problemOf(diag, context.options);
      if (problem !== undefined) refuseNow(context, descriptor, ...problem);
      if (diag.state === TCP.listen) refuseWaiting(descriptor, diag, all, context);
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

  open: (entry, holder) => openTcp(socketOf(entry), holder),
  connect: (entry, holder) => settleTcp(socketOf(entry), holder),
};

/** What sock_diag said of sockets of this dump. */
const known = perDump(() => new Map<number, TcpDiag>());

function diagsByInode(diags: readonly TcpDiag[]): Map<number, TcpDiag> {
  return new Map(diags.filter(({ inode }) => inode !== 0).map((diag) => [diag.inode, diag]));
}

type Problem = readonly [reason: string, help?: string];

function problemOf(diag: TcpDiag, options: DumpOptions): Problem | undefined {
  if (diag.hasMd5) return ['its segments are signed (TCP_MD5SIG), and the kernel does not show the keys'];
  if (diag.upperLayer !== undefined)
    return [`${diag.upperLayer} has been put on top of it (TCP_ULP), whose state cannot be read`];
  if (isConnected(diag.state) && !options.tcpEstablished && options.tcpClose !== true)
    return ['it is connected', '--tcp-established saves it, --tcp-close makes it a closed socket'];
  return undefined;
}

/**
 * Connections that nobody has accepted, or that are about to become such, have no descriptor by which they could be
 * saved. They are accepted in a moment, most of the time.
 */
function refuseWaiting(
  descriptor: Descriptor,
  listener: TcpDiag,
  all: readonly TcpDiag[],
  context: DumpContext,
): void {
  if (context.options.skipInFlight === true) return;
  const halfOpen = all.filter(
    ({ state, inode, local }) =>
      state === TCP.synReceived && inode === 0 && local.port === listener.local.port,
  ).length;
  const waiting = listener.receiveQueue + halfOpen;
  if (waiting === 0) return;
  context.retry(
    refusalOf(
      descriptor,
      `${waiting} connections to port ${listener.local.port} have not been accepted`,
      'wait until the program has accepted them, or drop them (--skip-in-flight)',
    ),
  );
}

function describe(descriptor: Descriptor, id: number, taken: number, context: DumpContext): inet_sk_entry {
  const identity = identify(descriptor);
  if (identity === undefined) return refuseNow(context, descriptor, 'it is no socket any more');
  const { family, inode } = identity;
  dumpMoreOptions(taken, id, identity, descriptor, context);
  const repaired = repairedSocket(inode, context);
  const diag = known(context).get(inode);
  const opts = dumpOptions(taken);
  if (repaired !== undefined) opts.reuseaddr = repaired.reuse !== 0;
  const stream = repaired === undefined ? undefined : dumpStream(descriptor, taken, inode, context);
  const state = stream ?? (diag?.state === TCP.listen ? TCP.listen : TCP.close);
  const local = localAddress(taken);
  const peer = stream === undefined ? undefined : (peerAddress(taken) ?? diag?.remote);
  return create(inet_sk_entrySchema, {
    id,
    ino: inode,
    family,
    type: S.SOCK_STREAM,
    proto: S.IPPROTO_TCP,
    state,
    srcPort: local.port,
    srcAddr: [...local.words],
    dstPort: peer?.port ?? 0,
    dstAddr: [...(peer?.words ?? noWords(family))],
    flags: descriptor.info.info.flags & ~O_CLOEXEC,
    backlog: state === TCP.listen ? (diag?.sendQueue ?? 0) : 0,
    fown: dumpOwner(descriptor, taken, context),
    opts,
    ipOpts: dumpIpOptions(taken, family),
    tcpOpts: dumpTcpOptions(taken),
    ...(family === S.AF_INET6 ? { v6only: getNumber(taken, S.SOL_IPV6, S.IPV6_V6ONLY) === 1 } : {}),
  });
}

/** Answers the state that was found. */
function dumpStream(descriptor: Descriptor, taken: number, inode: number, context: DumpContext): number {
  if (!isConnected(tcpInfo(taken).state)) return TCP.close;
  try {
    const { state, entry, queues } = readStream(taken);
    context.writer.writeRecords('tcp-stream', inode, [{ message: entry, raw: [...queues] }]);
    return state;
  } catch (error) {
    if (error instanceof StreamError) return refuseNow(context, descriptor, error.message);
    throw error;
  }
}

function dumpTcpOptions(fd: number): tcp_opts_entry {
  return create(tcp_opts_entrySchema, {
    keepcnt: getTcp(fd, S.TCP_KEEPCNT),
    keepidle: getTcp(fd, S.TCP_KEEPIDLE),
    keepintvl: getTcp(fd, S.TCP_KEEPINTVL),
    ...(getTcp(fd, S.TCP_CORK) === 0 ? {} : { cork: true }),
    ...(getTcp(fd, S.TCP_NODELAY) === 0 ? {} : { nodelay: true }),
  });
}

function socketOf(entry: file_entry): inet_sk_entry {
  if (entry.isk === undefined) throw new ImageError('files.img', `file ${entry.id} is no socket of IP`);
  return entry.isk;
}
