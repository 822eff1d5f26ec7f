import { O_CLOEXEC } from '../../abi/fcntl.js';
import * as S from '../../abi/socket.js';
import { createMessage, ImageError, type inet_sk_entry } from '../../image/index.js';
import type { Descriptor, DumpContext, FileKind, file_entry, Holder, Result } from '../contract.js';
import { refusalOf, refuseNow } from '../description/described.js';
import { throughDuplicate } from '../description/duplicate.js';
import { identify, type SocketIdentity } from '../description/identify.js';
import { dumpOwner, restoreOwner } from '../description/owner.js';
import { perDump, perRestore } from '../description/state.js';
import { setStatusFlags } from '../description/status-flags.js';
import { FD_TYPE } from '../description/types.js';
import { besideFor, besideOf, writeBeside } from './beside.js';
import { dumpQueue } from './datagram-pending.js';
import { closeForOthers, noteOpened, refill } from './datagram-refill.js';
import * as A from './inet-address.js';
import { dumpIpOptions, dumpRawOptions, restoreIpOptions } from './ip-options.js';
import { dumpMoreOptions, moreOptionsProblem, restoreEarlyMore, restoreLateMore } from './more-options.js';
import { groupsOf, joinGroup, type KnownGroup, knownGroups } from './multicast.js';
import { getNumber, setNumber } from './option-bytes.js';
import { dumpOptions, optionProblem, restoreEarlyOptions, restoreLateOptions } from './options.js';
import { openDatagramSocket } from './ping-group.js';
import { peersOf } from './proc-net.js';
import { udpShutdowns } from './udp-diag.js';

/**
 * Sockets of IPv4 and IPv6 that are no streams: UDP and UDP-Lite (udp(7)), raw ones (raw(7)), and those of ICMP that
 * ping uses (icmp(7)). Addresses, options, multicast groups, what is shut down, and what is queued are kept.
 */
const ESTABLISHED = 1;
const CLOSE = 7;

export const datagramSocket: FileKind = {
  name: 'UDP, UDP-Lite, raw and ICMP sockets',
  support:
    'addresses, options, classic filters, multicast groups with their sources, shutdown, queued datagrams of UDP with their senders (the interface reads as lo); unread packets of raw and ICMP ones, corked data and error queues are waited for; refused: eBPF filters; an error without a queue is lost as the ICMP packet may be; not kept: SO_COOKIE, IP_MULTICAST_IF by index alone, reuseport programs, IPV6_PKTINFO',
  member: 'isk',

  restores: ({ isk }) => isk !== undefined && isk.type !== S.SOCK_STREAM,

  recognise: (descriptor) => isDatagram(identify(descriptor)),

  check(descriptor, refuse) {
    const socket = identify(descriptor);
    if (socket === undefined) return;
    const reason = throughDuplicate(
      descriptor,
      (taken) => optionProblem(taken) ?? moreOptionsProblem(taken, socket),
    );
    if (reason !== undefined) refuse(refusalOf(descriptor, reason));
  },

  dump(descriptor, id, taken, context) {
    const socket = identify(descriptor);
    if (socket === undefined || !isDatagram(socket))
      return refuseNow(context, descriptor, 'it is no datagram socket any more');
    dumpQueue(descriptor, id, taken, socket, context);
    dumpMoreOptions(taken, id, socket, descriptor, context);
    const groups = groupsOf(taken, groupsAround(descriptor, socket, context));
    if (groups.length > 0) besideOf(context, id).groups = groups;
    return createMessage('files', {
      type: FD_TYPE.isk,
      id,
      isk: entryOf(descriptor, id, taken, socket, context),
    });
  },

  write: writeBeside,

  open(entry, holder) {
    const socket = socketOf(entry);
    const fd = rebuild(socket, holder);
    restoreOwner(`file:${entry.id}`, socket.fown, holder);
    return fd;
  },

  connect(entry, holder) {
    const socket = socketOf(entry);
    // It had to be on while several of the image were given the same port.
    if (!socket.opts?.reuseaddr && sharesPort(socket, holder))
      setNumber(holder.tape, holder.slot(`file:${entry.id}`), S.SOL_SOCKET, S.SO_REUSEADDR, 0);
  },
};

function isDatagram(socket: SocketIdentity | undefined): boolean {
  if (socket === undefined || (socket.family !== S.AF_INET && socket.family !== S.AF_INET6)) return false;
  if (socket.type === S.SOCK_RAW) return true;
  return (
    socket.type === S.SOCK_DGRAM &&
    [S.IPPROTO_UDP, S.IPPROTO_UDPLITE, S.IPPROTO_ICMP, S.IPPROTO_ICMPV6].includes(socket.protocol)
  );
}

function entryOf(
  descriptor: Descriptor,
  id: number,
  taken: number,
  socket: SocketIdentity,
  context: DumpContext,
): Omit<inet_sk_entry, '$typeName' | '$unknown'> {
  const { family, type, protocol, inode } = socket;
  const local = A.localAddress(taken);
  const peer = A.peerAddress(taken) ?? listedPeer(descriptor, socket, context);
  const shutdown = shutdownOf(socket, context);
  const opts = dumpOptions(taken);
  const ipOpts = dumpIpOptions(taken, family);
  if (type === S.SOCK_RAW) ipOpts.raw = dumpRawOptions(taken, family, protocol);
  return {
    id,
    ino: inode,
    family,
    type,
    proto: protocol,
    state: peer === undefined ? CLOSE : ESTABLISHED,
    srcPort: local.port,
    dstPort: peer?.port ?? 0,
    flags: descriptor.info.info.flags & ~O_CLOEXEC,
    backlog: 0,
    srcAddr: [...local.words],
    dstAddr: [...(peer?.words ?? A.noWords(family))],
    fown: dumpOwner(descriptor, taken, context),
    opts,
    ipOpts,
    ...(family === S.AF_INET6 ? { v6only: getNumber(taken, S.SOL_IPV6, S.IPV6_V6ONLY) !== 0 } : {}),
    ...(A.needsInterface(local) && opts.soBoundDev !== '' ? { ifname: opts.soBoundDev } : {}),
    ...(shutdown === 0 ? {} : { shutdown }),
  } as Omit<inet_sk_entry, '$typeName' | '$unknown'>;
}

const shutdowns = perDump(() => new Map<string, ReadonlyMap<number, number>>());
const peers = perDump(() => new Map<string, ReadonlyMap<number, A.InetAddress>>());
const groups = perDump(() => new Map<string, readonly KnownGroup[]>());

/** RCV_SHUTDOWN 1, SEND_SHUTDOWN 2. */
function shutdownOf({ family, type, protocol, inode }: SocketIdentity, context: DumpContext): number {
  if (type === S.SOCK_RAW || (protocol !== S.IPPROTO_UDP && protocol !== S.IPPROTO_UDPLITE)) return 0;
  return (
    once(shutdowns(context), `${family}:${protocol}`, () => udpShutdowns(family, protocol)).get(inode) ?? 0
  );
}

function listedPeer(
  { process }: Descriptor,
  { family, type, protocol, inode }: SocketIdentity,
  context: DumpContext,
): A.InetAddress | undefined {
  const all = once(peers(context), `${family}:${type}:${protocol}`, () =>
    peersOf(process.pid, family, type, protocol),
  );
  return all.get(inode);
}

/** A socket of IPv6 may be in groups of both. */
function groupsAround(
  { process }: Descriptor,
  { family, type }: SocketIdentity,
  context: DumpContext,
): readonly KnownGroup[] {
  const families =
    family === S.AF_INET ? [S.AF_INET] : type === S.SOCK_RAW ? [S.AF_INET6] : [S.AF_INET6, S.AF_INET];
  return families.flatMap((each) => once(groups(context), `${each}`, () => knownGroups(process.pid, each)));
}

function once<V>(known: Map<string, V>, key: string, make: () => V): V {
  const value = known.get(key) ?? make();
  known.set(key, value);
  return value;
}

function socketOf({ id, isk }: file_entry): inet_sk_entry {
  if (isk === undefined || (isk.type !== S.SOCK_DGRAM && isk.type !== S.SOCK_RAW))
    throw new ImageError('files.img', `file ${id} is no datagram socket`);
  return isk;
}

function rebuild(socket: inet_sk_entry, holder: Holder): Result {
  const { tape } = holder;
  const { id, family, opts, ipOpts } = socket;
  const local = A.imageAddress(family, socket.srcPort, socket.srcAddr, id);
  const peer = A.imageAddress(family, socket.dstPort, socket.dstAddr, id);
  const fd = openDatagramSocket(tape, family, socket.type, socket.proto);
  if (socket.v6only) setNumber(tape, fd, S.SOL_IPV6, S.IPV6_V6ONLY, 1);
  restoreEarlyMore(holder, id, fd);
  if (opts !== undefined) restoreEarlyOptions(tape, fd, opts);
  if (sharesPort(socket, holder)) setNumber(tape, fd, S.SOL_SOCKET, S.SO_REUSEADDR, 1);
  if (ipOpts !== undefined) restoreIpOptions(tape, fd, family, ipOpts);
  const isFilled = (besideFor(holder.reader, id).datagrams ?? []).length > 0;
  if (isFilled) closeForOthers(tape, fd);
  bind(socket, local, holder, fd);
  for (const group of besideFor(holder.reader, id).groups ?? []) joinGroup(tape, fd, group, id);
  if (isFilled) refill(holder, fd, socket);
  noteOpened(holder, socket);
  if (peer.port !== 0 || !A.isAny(peer.words)) A.connectInet(tape, fd, peer);
  if (opts !== undefined) restoreLateOptions(tape, fd, opts);
  restoreLateMore(holder, id, fd);
  // On a socket that is not connected it works, and says ENOTCONN (net/ipv4/af_inet.c inet_shutdown).
  if (socket.shutdown !== 0) tape.call('shutdown', [fd, socket.shutdown - 1], 'any');
  setStatusFlags(tape, fd, socket.flags);
  return fd;
}

/** The port of a raw socket is its protocol, that of a ping socket the id of its packets. */
function bind(socket: inet_sk_entry, local: A.InetAddress, { tape }: Holder, fd: Result): void {
  const isRaw = socket.type === S.SOCK_RAW;
  if (A.isAny(local.words) && (isRaw || local.port === 0)) return;
  A.bindInet(tape, fd, isRaw ? { ...local, port: 0 } : local, socket.ipOpts?.freebind === true, isRaw);
}

/** How many sockets of the image have a port. */
const ports = perRestore(({ reader }) => {
  const counts = new Map<string, number>();
  for (const { isk } of reader.read('files'))
    if (isk !== undefined) counts.set(portOf(isk), (counts.get(portOf(isk)) ?? 0) + 1);
  return counts;
});

function portOf({ type, proto, srcPort }: inet_sk_entry): string {
  return `${type}:${proto}:${srcPort}`;
}

function sharesPort(socket: inet_sk_entry, holder: Holder): boolean {
  if (socket.srcPort === 0 || socket.type === S.SOCK_RAW) return false;
  return (ports(holder).get(portOf(socket)) ?? 0) > 1;
}
