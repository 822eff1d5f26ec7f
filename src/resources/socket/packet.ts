import { O_CLOEXEC } from '../../abi/fcntl.js';
import * as P from '../../abi/packet.js';
import * as S from '../../abi/socket.js';
import { createMessage, ImageError, type packet_sock_entry } from '../../image/index.js';
import { words } from '../../kernel/words.js';
import type { Descriptor, DumpContext, FileKind, file_entry, Holder, Result } from '../contract.js';
import { refusalOf, refuseNow } from '../description/described.js';
import { throughDuplicate } from '../description/duplicate.js';
import { identify } from '../description/identify.js';
import { dumpOwner, restoreOwner } from '../description/owner.js';
import { perDump } from '../description/state.js';
import { setStatusFlags } from '../description/status-flags.js';
import { FD_TYPE } from '../description/types.js';
import { besideFor, besideOf, writeBeside } from './beside.js';
import { interfaceName, mustHaveInterface } from './interfaces.js';
import { dumpMoreOptions, restoreEarlyMore, restoreLateMore } from './more-options.js';
import { getNumber, setBytes, setNumber } from './option-bytes.js';
import { dumpOptions, optionProblem, restoreEarlyOptions, restoreLateOptions } from './options.js';
import { type PacketDiag, packetSockets } from './packet-diag.js';
import { hasRing, ringProblem } from './packet-ring.js';
import { retryUnread, unreadOf } from './unread.js';

/**
 * packet(7): protocol and interface, memberships, fanout, options, rings that nothing has gone through yet. Packets that
 * wait to be read cannot be put back; interfaces are found by their names.
 */
export const packetSocket: FileKind = {
  name: 'packet sockets',
  support:
    'protocol, interface, memberships, fanout, options, classic filters, rings nothing has gone through; unread packets are waited for',
  member: 'psk',

  recognise: (descriptor) => identify(descriptor)?.family === S.AF_PACKET,

  check(descriptor, refuse) {
    const inode = identify(descriptor)?.inode ?? 0;
    const diag = packetSockets().get(inode);
    const reason = throughDuplicate(descriptor, (taken) => problemOf(taken, diag));
    if (reason !== undefined) refuse(refusalOf(descriptor, reason));
  },

  dump(descriptor, id, taken, context) {
    const socket = identify(descriptor);
    const diag = sockets(context).get(socket?.inode ?? 0);
    if (socket?.family !== S.AF_PACKET || diag === undefined)
      return refuseNow(context, descriptor, 'it is no packet socket of this network namespace any more');
    if (!hasRing(diag) && unreadOf(taken).data && context.options.dropPackets !== true)
      retryUnread(descriptor, 'unread packets', context);
    dumpMoreOptions(taken, id, socket, descriptor, context);
    const names = interfacesOf(diag);
    if (Object.keys(names).length > 0) besideOf(context, id).interfaces = names;
    const psk = entryOf(descriptor, id, taken, diag, context);
    return createMessage('files', { type: FD_TYPE.psk, id, psk });
  },

  write: writeBeside,

  open(entry, holder) {
    const socket = socketOf(entry);
    const fd = socket.type === S.SOCK_PACKET ? rebuildOld(socket, holder) : rebuild(socket, holder);
    setStatusFlags(holder.tape, fd, socket.flags);
    restoreOwner(`file:${entry.id}`, socket.fown, holder);
    return fd;
  },
};

const sockets = perDump(packetSockets);

function problemOf(taken: number, diag: PacketDiag | undefined): string | undefined {
  if (diag === undefined) return 'it is no packet socket of this network namespace';
  const fanout = ((getNumber(taken, S.SOL_PACKET, P.PACKET_FANOUT) ?? 0) >>> 16) & 0xff;
  if (fanout === P.PACKET_FANOUT_CBPF || fanout === P.PACKET_FANOUT_EBPF)
    return 'a program spreads packets over its fanout group, which the kernel does not show';
  return optionProblem(taken) ?? ringProblem(taken, diag);
}

function interfacesOf({ index, memberships }: PacketDiag): Record<string, string> {
  const names: Record<string, string> = {};
  for (const each of [index, ...memberships.map((membership) => membership.index)]) {
    const name = each === 0 ? undefined : interfaceName(each);
    if (name !== undefined) names[each] = name;
  }
  return names;
}

function entryOf(descriptor: Descriptor, id: number, taken: number, diag: PacketDiag, context: DumpContext) {
  const fanout = fanoutOf(taken);
  return {
    id,
    type: diag.type,
    protocol: diag.protocol,
    flags: descriptor.info.info.flags & ~O_CLOEXEC,
    ifindex: diag.index,
    fown: dumpOwner(descriptor, taken, context),
    opts: dumpOptions(taken),
    version: diag.version,
    reserve: diag.reserve,
    auxData: diag.hasAuxiliaryData,
    origDev: diag.hasOriginalDevice,
    vnetHdr: diag.hasVnetHeader,
    loss: diag.loss,
    timestamp: diag.timestamp,
    copyThresh: diag.copyThreshold,
    mclist: diag.memberships.flatMap(({ index, type, count, address }) =>
      Array.from({ length: count }, () => ({ index, type, addr: address })),
    ),
    ...(fanout === 0 ? {} : { fanout }),
    ...(diag.receiveRing === undefined ? {} : { rxRing: diag.receiveRing }),
    ...(diag.sendRing === undefined ? {} : { txRing: diag.sendRing }),
  };
}

/** Id, type and flags; 0 without a group. */
function fanoutOf(taken: number): number {
  const value = (getNumber(taken, S.SOL_PACKET, P.PACKET_FANOUT) ?? 0) >>> 0;
  return (value & ~(P.PACKET_FANOUT_FLAG_UNIQUEID << 16)) >>> 0;
}

function socketOf({ id, psk }: file_entry): packet_sock_entry {
  if (psk === undefined) throw new ImageError('files.img', `file ${id} is no packet socket`);
  return psk;
}

/** Interfaces have other numbers after a boot; images of CRIU have nothing else. */
function indexOf(number: number, id: number, holder: Holder): number {
  if (number === 0) return 0;
  const name = besideFor(holder.reader, id).interfaces?.[number];
  return name === undefined ? number : mustHaveInterface(name, `packet socket ${id}`);
}

/** A protocol makes it receive; so it is bound when its filter and rings are there. */
function rebuild(socket: packet_sock_entry, holder: Holder): Result {
  const { tape } = holder;
  const { id, opts } = socket;
  const fd = tape.call('socket', [S.AF_PACKET, socket.type | S.SOCK_CLOEXEC, 0]);
  const set = (option: number, value: number): void => setNumber(tape, fd, S.SOL_PACKET, option, value);
  if (socket.vnetHdr) set(P.PACKET_VNET_HDR, 1);
  restoreEarlyMore(holder, id, fd);
  if (opts !== undefined) restoreEarlyOptions(tape, fd, opts);
  set(P.PACKET_VERSION, socket.version);
  set(P.PACKET_RESERVE, socket.reserve);
  set(P.PACKET_TIMESTAMP, socket.timestamp);
  set(P.PACKET_COPY_THRESH, socket.copyThresh);
  if (socket.auxData) set(P.PACKET_AUXDATA, 1);
  if (socket.origDev) set(P.PACKET_ORIGDEV, 1);
  if (socket.loss) set(P.PACKET_LOSS, 1);
  restoreRing(holder, fd, P.PACKET_RX_RING, socket.rxRing);
  restoreRing(holder, fd, P.PACKET_TX_RING, socket.txRing);
  if (opts !== undefined) restoreLateOptions(tape, fd, opts);
  restoreLateMore(holder, id, fd);
  const index = indexOf(socket.ifindex, id, holder);
  if (socket.protocol !== 0 || index !== 0) {
    const address = linkAddress(socket.protocol, index);
    tape.call('bind', [fd, tape.space(address), address.length]);
  }
  // The kernel names the one that was joined last first.
  for (const { index: number, type, addr } of [...socket.mclist].reverse()) {
    const request = new Uint8Array(8 + Math.max(addr.length, 8));
    const view = new DataView(request.buffer);
    view.setInt32(0, indexOf(number, id, holder), true);
    view.setUint16(4, type, true);
    view.setUint16(6, addr.length, true);
    request.set(addr, 8);
    setBytes(tape, fd, S.SOL_PACKET, P.PACKET_ADD_MEMBERSHIP, request);
  }
  if (Object.hasOwn(socket, 'fanout')) set(P.PACKET_FANOUT, socket.fanout | 0);
  return fd;
}

/** struct sockaddr_ll: family, protocol, interface. */
function linkAddress(protocol: number, index: number): Uint8Array {
  const bytes = new Uint8Array(20);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, S.AF_PACKET, true);
  view.setUint16(2, protocol, true);
  view.setInt32(4, index, true);
  return bytes;
}

function restoreRing({ tape }: Holder, fd: Result, option: number, ring: packet_sock_entry['rxRing']): void {
  if (ring === undefined) return;
  const { blockSize, blockNr, frameSize, frameNr, retireTmo, sizeofPriv, features } = ring;
  const request = words([blockSize, blockNr, frameSize, frameNr, retireTmo, sizeofPriv, features]);
  setBytes(tape, fd, S.SOL_PACKET, option, request);
}

/** SOCK_PACKET, of Linux 2.0: it takes no options of its level, and is bound by the interface's name. */
function rebuildOld(socket: packet_sock_entry, holder: Holder): Result {
  const { tape } = holder;
  const { id, opts } = socket;
  const fd = tape.call('socket', [S.AF_PACKET, S.SOCK_PACKET | S.SOCK_CLOEXEC, socket.protocol]);
  restoreEarlyMore(holder, id, fd);
  if (opts !== undefined) restoreEarlyOptions(tape, fd, opts);
  if (opts !== undefined) restoreLateOptions(tape, fd, opts);
  restoreLateMore(holder, id, fd);
  const name = besideFor(holder.reader, id).interfaces?.[socket.ifindex] ?? interfaceName(socket.ifindex);
  if (socket.ifindex === 0) return fd;
  if (name === undefined)
    throw new Error(`packet socket ${id} needs interface ${socket.ifindex}, which does not exist here`);
  const bytes = new Uint8Array(16);
  new DataView(bytes.buffer).setUint16(0, S.AF_PACKET, true);
  bytes.set(Buffer.from(name).subarray(0, 13), 2);
  tape.call('bind', [fd, tape.space(bytes), bytes.length]);
  return fd;
}
