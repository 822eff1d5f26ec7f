import { existsSync } from 'node:fs';
import { O_CLOEXEC } from '../../abi/fcntl.js';
import * as N from '../../abi/netlink.js';
import * as S from '../../abi/socket.js';
import { createMessage, ImageError, type netlink_sk_entry } from '../../image/index.js';
import { readText } from '../../kernel/procfs/read.js';
import type { Descriptor, FileKind, file_entry, Holder, Result } from '../contract.js';
import { refusalOf, refuseNow } from '../description/described.js';
import { throughDuplicate } from '../description/duplicate.js';
import { identify } from '../description/identify.js';
import { dumpOwner, restoreOwner } from '../description/owner.js';
import { perDump } from '../description/state.js';
import { setStatusFlags } from '../description/status-flags.js';
import { FD_TYPE } from '../description/types.js';
import { besideFor, besideOf, writeBeside } from './beside.js';
import { dumpMoreOptions, restoreEarlyMore, restoreLateMore } from './more-options.js';
import { type NetlinkDiag, netlinkSockets } from './netlink-diag.js';
import { setNumber } from './option-bytes.js';
import { dumpOptions, optionProblem, restoreEarlyOptions, restoreLateOptions } from './options.js';
import { retryUnread, unreadOf } from './unread.js';

/**
 * netlink(7): the port, groups, the destination, options. Messages that are not read yet come from the kernel or from
 * others, and nobody can send them again in their name; they are waited for. What happens to be sent to its groups
 * while there is no such socket is missed, as by one whose buffer is full.
 */
const CONNECTED = 1;

export const netlinkSocket: FileKind = {
  name: 'netlink sockets',
  support:
    'port, all groups, destination, options, classic filters; unread messages are waited for; another port where that is taken',
  member: 'nlsk',

  recognise: (descriptor) => identify(descriptor)?.family === S.AF_NETLINK,

  check(descriptor, refuse) {
    const reason = throughDuplicate(descriptor, optionProblem) ?? registrationOf(descriptor);
    if (reason !== undefined) refuse(refusalOf(descriptor, reason));
  },

  dump(descriptor, id, taken, context) {
    const socket = identify(descriptor);
    if (socket?.family !== S.AF_NETLINK)
      return refuseNow(context, descriptor, 'it is no netlink socket any more');
    const diag = sockets(context).get(socket.inode) ?? UNBOUND;
    const unread = unreadOf(taken);
    if (unread.data || unread.error || diag.isAnswering) retryUnread(descriptor, 'unread messages', context);
    dumpMoreOptions(taken, id, socket, descriptor, context);
    const beside = besideOf(context, id);
    if (socket.type !== S.SOCK_RAW) beside.type = socket.type;
    // CRIU takes no image with more than 32 groups.
    const [first = 0, ...more] = diag.groups;
    if (more.length > 0) beside.netlink_groups = more;
    const nlsk = {
      id,
      ino: socket.inode,
      protocol: socket.protocol,
      state: diag.state,
      flags: descriptor.info.info.flags & ~O_CLOEXEC,
      portid: diag.port,
      groups: first === 0 ? [] : [first],
      dstPortid: diag.destinationPort,
      dstGroup: diag.destinationGroup,
      fown: dumpOwner(descriptor, taken, context),
      opts: dumpOptions(taken),
    };
    return createMessage('files', { type: FD_TYPE.nlsk, id, nlsk });
  },

  write: writeBeside,

  open(entry, holder) {
    const socket = socketOf(entry);
    const fd = rebuild(socket, holder);
    restoreOwner(`file:${entry.id}`, socket.fown, holder);
    return fd;
  },
};

const UNBOUND: NetlinkDiag = {
  state: 0,
  port: 0,
  destinationPort: 0,
  destinationGroup: 0,
  groups: [],
  isAnswering: false,
};

const sockets = perDump(netlinkSockets);

/** Files of the kernel's that name netlink ports it sends packets to. */
const REGISTRATIONS = [
  { file: 'nfnetlink_queue', what: 'packets are queued to it (NFQUEUE)' },
  { file: 'nfnetlink_log', what: 'packets are logged to it (NFLOG)' },
] as const;

/** What a program has registered by its port; the image has nothing of it. */
function registrationOf(descriptor: Descriptor): string | undefined {
  const socket = identify(descriptor);
  const NETLINK_NETFILTER = 12;
  if (socket?.protocol !== NETLINK_NETFILTER) return undefined;
  const port = netlinkSockets().get(socket.inode)?.port ?? 0;
  if (port === 0) return undefined;
  for (const { file, what } of REGISTRATIONS) {
    const path = `/proc/${descriptor.process.pid}/net/netfilter/${file}`;
    if (!existsSync(path)) continue;
    for (const line of readText(path).split('\n')) {
      const [, peer] = line.trim().split(/\s+/);
      if (Number(peer) === port) return what;
    }
  }
  return undefined;
}

function socketOf({ id, nlsk }: file_entry): netlink_sk_entry {
  if (nlsk === undefined) throw new ImageError('files.img', `file ${id} is no netlink socket`);
  return nlsk;
}

function rebuild(socket: netlink_sk_entry, holder: Holder): Result {
  const { tape } = holder;
  const { id, opts } = socket;
  const { type = S.SOCK_RAW, netlink_groups: more = [] } = besideFor(holder.reader, id);
  const fd = tape.call('socket', [S.AF_NETLINK, type | S.SOCK_CLOEXEC, socket.protocol]);
  restoreEarlyMore(holder, id, fd);
  if (opts !== undefined) restoreEarlyOptions(tape, fd, opts);
  // Before it is in any group: what it is to get goes through its filter, into a queue of its size.
  if (opts !== undefined) restoreLateOptions(tape, fd, opts);
  restoreLateMore(holder, id, fd);
  if (socket.portid !== 0) bind(socket, holder, fd);
  socket.groups.concat(more).forEach((word, index) => {
    for (let bit = 0; bit < 32; bit++)
      if (((word >>> bit) & 1) !== 0)
        setNumber(tape, fd, S.SOL_NETLINK, N.NETLINK_ADD_MEMBERSHIP, index * 32 + bit + 1);
  });
  if (socket.state === CONNECTED) {
    const group = socket.dstGroup === 0 ? 0 : 1 << (socket.dstGroup - 1);
    const bytes = addressOf(socket.dstPortid, group);
    tape.call('connect', [fd, tape.space(bytes), bytes.length]);
  }
  setStatusFlags(tape, fd, socket.flags);
  return fd;
}

/** Ports are mostly the kernel's choice, by the pid of whoever asks; where one is taken, the kernel chooses another. */
function bind({ portid }: netlink_sk_entry, { tape }: Holder, fd: Result): void {
  const bound = tape.label();
  const wanted = addressOf(portid, 0);
  const any = addressOf(0, 0);
  tape.jump('bind', [fd, tape.space(wanted), wanted.length], bound);
  tape.call('bind', [fd, tape.space(any), any.length]);
  tape.place(bound);
}

/** struct sockaddr_nl. */
function addressOf(port: number, groups: number): Uint8Array {
  const bytes = new Uint8Array(12);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, S.AF_NETLINK, true);
  view.setUint32(4, port, true);
  view.setUint32(8, groups >>> 0, true);
  return bytes;
}
