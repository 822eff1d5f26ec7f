import { O_CLOEXEC } from '../../abi/fcntl.js';
import * as S from '../../abi/socket.js';
import { createMessage, ImageError, type MessageOf, type unix_sk_entry } from '../../image/index.js';
import type { FileKind, file_entry, Holder, Result, Tape } from '../contract.js';
import { refusalOf, refuseNow } from '../description/described.js';
import { inherited } from '../description/inherit.js';
import { dumpOwner, restoreOwner } from '../description/owner.js';
import { freshPair } from '../description/pair.js';
import { perDump, perRestore } from '../description/state.js';
import { setStatusFlags } from '../description/status-flags.js';
import { FD_TYPE } from '../description/types.js';
import { dumpOptions, restoreOptions } from './options.js';
import { type UnixDiag, unixDiag } from './unix-diag.js';
import { peekQueue } from './unix-queue.js';

/**
 * Pairs of Unix sockets without addresses, as socketpair(2) makes them: type, options, queued bytes and packets, what is
 * shut down, ends that were closed. Not kept is the peer's pid of SO_PEERCRED, which is of whoever made the pair.
 * Sockets with addresses, listening ones and descriptors in flight are refused.
 */
const LINK = /^socket:\[(\d+)\]$/;
const ESTABLISHED = 1;
const SHUT_BOTH = 3;

const queues = perDump(() => new Map<number, readonly Uint8Array[]>());

export const unixPair: FileKind = {
  name: 'unix socket pair',
  support:
    'socketpair(2): queued bytes and packets, options, shutdown; no addresses, no descriptors in flight',
  member: 'usk',

  recognise: ({ info }) => LINK.test(info.link) && diagOf(info.link) !== undefined,

  check(descriptor, refuse) {
    const diag = diagOf(descriptor.info.link);
    const reason = diag === undefined ? undefined : problemOf(diag);
    if (reason !== undefined) refuse(refusalOf(descriptor, reason));
  },

  checkAll(descriptors, refuse, { external }) {
    const inside = new Set(descriptors.map(({ info }) => inodeOf(info.link)));
    for (const descriptor of descriptors) {
      const { link } = descriptor.info;
      const diag = diagOf(link);
      if (diag === undefined || problemOf(diag) !== undefined || external.includes(link)) continue;
      if (diag.peer !== undefined && diag.peer !== 0 && !inside.has(diag.peer))
        refuse(
          refusalOf(
            descriptor,
            'it is connected to a socket outside of the tree',
            `--external ${link}, and --inherit-fd fd[N]:${link} at restore`,
          ),
        );
    }
  },

  dump(descriptor, id, taken, context) {
    const { link, info } = descriptor.info;
    const diag = diagOf(link);
    if (diag === undefined) return refuseNow(context, descriptor, 'it is no Unix socket any more');
    const problem = problemOf(diag);
    if (problem !== undefined) refuseNow(context, descriptor, problem);
    const queue = peekQueue(taken, diag.type, descriptor, context);
    if (queue.problem !== undefined) refuseNow(context, descriptor, queue.problem);
    queues(context).set(id, queue.packets);
    const usk = {
      id,
      ino: inodeOf(link),
      type: diag.type,
      state: diag.state,
      flags: info.flags & ~O_CLOEXEC,
      uflags: 0,
      backlog: 0,
      peer: diag.peer ?? 0,
      fown: dumpOwner(descriptor, taken, context),
      opts: dumpOptions(taken),
      name: new Uint8Array(),
      ...(diag.shutdown === 0 ? {} : { shutdown: diag.shutdown }),
    };
    return createMessage('files', { type: FD_TYPE.usk, id, usk });
  },

  write(context) {
    const records = [...queues(context)].flatMap(([idFor, packets]) =>
      packets.map((packet) => ({
        message: createMessage('sk-queues', { idFor, length: packet.length }),
        raw: [packet],
      })),
    );
    if (records.length > 0) context.writer.writeRecords('sk-queues', null, records);
  },

  open(entry, holder) {
    const socket = socketOf(entry);
    const given = inherited(holder, [`socket:[${socket.ino}]`]);
    if (given !== undefined) return given;
    const fd = endOf(socket, holder);
    restoreOwner(`file:${entry.id}`, socket.fown, holder);
    return fd;
  },
};

function inodeOf(link: string): number {
  return Number(LINK.exec(link)?.[1] ?? 0);
}

function diagOf(link: string): UnixDiag | undefined {
  return unixDiag(inodeOf(link));
}

function problemOf(diag: UnixDiag): string | undefined {
  if (diag.name !== undefined) return 'Unix sockets with an address cannot be saved yet';
  if (diag.state !== ESTABLISHED || diag.peer === undefined)
    return 'Unix sockets that are not connected cannot be saved yet';
  if (diag.peer === 0 && diag.shutdown !== SHUT_BOTH)
    return 'its peer is a socket nobody has a descriptor of';
  return undefined;
}

function socketOf(entry: file_entry): unix_sk_entry {
  const { usk } = entry;
  if (usk === undefined) throw new ImageError('files.img', `file ${entry.id} is no Unix socket`);
  if (usk.name.length > 0 || usk.state !== ESTABLISHED)
    throw new ImageError(
      'files.img',
      `file ${entry.id}: Unix sockets with an address cannot be restored yet`,
    );
  return usk;
}

/** Ends made ahead of their turn, by the file's id. */
const waiting = perRestore(() => new Map<number, string>());

function endOf(socket: unix_sk_entry, holder: Holder): Result {
  const { tape } = holder;
  const key = waiting(holder).get(socket.id) ?? makePair(socket, holder);
  return tape.call('dup', [holder.slot(key)]);
}

/** Both ends, filled; answers the key of this one. */
function makePair(socket: unix_sk_entry, holder: Holder): string {
  const { tape } = holder;
  const peer = socket.peer === 0 ? undefined : byInode(holder).get(socket.peer);
  const [mine, theirs] = freshPair(holder, (pair) =>
    tape.call('socketpair', [S.AF_UNIX, socket.type | S.SOCK_CLOEXEC, 0, pair]),
  );
  send(theirs, queueOf(socket.id, holder), tape);
  if (peer !== undefined) send(mine, queueOf(peer.id, holder), tape);
  const key = `unix:${socket.id}`;
  settle(mine, socket, holder);
  if (peer === undefined) tape.call('close', [theirs]);
  else {
    settle(theirs, peer, holder);
    holder.hold(`unix:${peer.id}`, theirs);
    waiting(holder).set(peer.id, `unix:${peer.id}`);
  }
  holder.hold(key, mine);
  return key;
}

const byInode = perRestore(({ reader }) => {
  const sockets = new Map<number, unix_sk_entry>();
  for (const { usk } of reader.read('files')) if (usk !== undefined) sockets.set(usk.ino, usk);
  return sockets;
});

const allQueues = perRestore(({ reader }) => {
  const queues = new Map<number, { message: MessageOf<'sk-queues'>; bytes: Uint8Array }[]>();
  for (const { message, raw } of reader.recordsOptional('sk-queues') ?? []) {
    const queue = queues.get(message.idFor) ?? [];
    queue.push({ message, bytes: raw[0] ?? new Uint8Array() });
    queues.set(message.idFor, queue);
  }
  return queues;
});

function queueOf(id: number, holder: Holder): readonly Uint8Array[] {
  const queue = allQueues(holder).get(id) ?? [];
  if (queue.some(({ message }) => message.scm.length > 0))
    throw new ImageError('sk-queues.img', `descriptors in flight to file ${id} cannot be restored yet`);
  return queue.map(({ bytes }) => bytes);
}

/** Into the queue of the other end, with room for all of it; the sizes of the image are set after that. */
function send(from: Result, packets: readonly Uint8Array[], tape: Tape): void {
  if (packets.length === 0) return;
  const ROOM = 1 << 29;
  const room = new Uint8Array(4);
  new DataView(room.buffer).setInt32(0, ROOM, true);
  tape.call('setsockopt', [from, S.SOL_SOCKET, S.SO_SNDBUFFORCE, tape.space(room), 4]);
  for (const packet of packets)
    tape.call('sendto', [from, tape.space(packet), packet.length, S.MSG_DONTWAIT, 0, 0], packet.length);
}

function settle(fd: Result, socket: unix_sk_entry, { tape }: Holder): void {
  if (socket.opts !== undefined) restoreOptions(tape, fd, socket.opts);
  setStatusFlags(tape, fd, socket.flags);
  // What one end shuts down, the other cannot use either; so both say it, and saying it twice is no error.
  if (socket.shutdown !== 0 && socket.peer !== 0) tape.call('shutdown', [fd, socket.shutdown - 1]);
}
