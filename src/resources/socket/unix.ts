import { O_CLOEXEC } from '../../abi/fcntl.js';
import * as S from '../../abi/socket.js';
import { createMessage, ImageError, type unix_sk_entry } from '../../image/index.js';
import { readNamespace } from '../../kernel/procfs/ns.js';
import type { Descriptor, DumpContext, FileKind, file_entry } from '../contract.js';
import { refusalOf, refuseNow } from '../description/described.js';
import { throughDuplicate } from '../description/duplicate.js';
import { identify } from '../description/identify.js';
import { dumpOwner } from '../description/owner.js';
import { perDump } from '../description/state.js';
import { FD_TYPE } from '../description/types.js';
import { USK_EXTERN } from '../description/used.js';
import { writeBeside } from './beside.js';
import { dumpMoreOptions } from './more-options.js';
import { dumpOptions, optionProblem } from './options.js';
import { build } from './unix-build.js';
import { allUnix, isKnownUnix, STATE, type UnixDiag } from './unix-diag.js';
import { type UnixExtras, writeExtras } from './unix-extras.js';
import { fill } from './unix-fill.js';
import { isExternal, judge, surround } from './unix-judge.js';
import { boundFile, isPath } from './unix-name.js';
import { closeAll } from './unix-peek.js';
import { insidePid, peerName, peerOf, selfOf } from './unix-peer.js';
import { type Packet, peekQueue } from './unix-queue.js';

/**
 * Unix sockets, unix(7): addresses, peers, queues and what is in flight in them. The kernel shows them by sock_diag(7),
 * SIOCUNIXFILE and MSG_PEEK. Bytes that were sent to a socket that has not been accepted are readable by nobody, so such
 * a connection is waited for, then refused. A restore makes all sockets at once (unix-build.ts), before any process of the
 * image exists, and fills their queues (unix-fill.ts) when every description is there to be in flight.
 */
interface Dumped {
  readonly descriptor: Descriptor;
  readonly id: number;
  readonly diag: UnixDiag;
  readonly entry: unix_sk_entry;
  readonly extras: { -readonly [K in keyof UnixExtras]: UnixExtras[K] };
  readonly packets: readonly Packet[];
  /** Ids of the files in flight, packet by packet. */
  rights: readonly (readonly number[])[];
}

class Sockets {
  /** Everything that is asked of the kernel at once, when the first socket is met. */
  readonly all = allUnix();
  readonly byInode = new Map<number, Dumped>();
  readonly unread: Dumped[] = [];
  /** Descriptors in flight, duplicates of ours, that are not the collector's yet. */
  readonly inFlight = new Set<number>();
  readonly #namespaces = new Map<number, number | undefined>();

  /** The id of the network namespace of a process. */
  namespaceOf(pid: number, { namespaceId }: DumpContext): number | undefined {
    if (!this.#namespaces.has(pid))
      this.#namespaces.set(pid, namespaceId?.('net', readNamespace(pid, 'net').inode));
    return this.#namespaces.get(pid);
  }
}

const state = perDump<{ sockets?: Sockets }>(() => ({}));

export const unix: FileKind = {
  name: 'Unix socket',
  support:
    'stream, datagram, seqpacket: pairs, listening (with connections not accepted yet, while nothing was sent to them), named, deleted, renamed, relative, abstract; queues with senders, descriptors and credentials in flight; shutdown, peek offset, options, who the peer is (SO_PEERCRED; not SO_PEERPIDFD, and of a process that lives outside the tree not the pid); peers outside the tree by --ext-unix-sk or --inherit-fd; no out-of-band bytes',
  member: 'usk',

  recognise(descriptor) {
    if (!descriptor.info.link.startsWith('socket:')) return false;
    if (isKnownUnix(inodeOf(descriptor))) return true;
    if (identify(descriptor)?.family !== S.AF_UNIX) return false;
    // To ask for all at once is cheaper than to ask for each.
    allUnix();
    return true;
  },

  check(descriptor, refuse) {
    const reason = throughDuplicate(descriptor, optionProblem);
    if (reason !== undefined) refuse(refusalOf(descriptor, reason));
  },

  checkAll(descriptors, refuse, options) {
    const inside = new Set(descriptors.map(inodeOf));
    const surroundings = surround(allUnix(), inside);
    for (const descriptor of descriptors) {
      const found = judge(descriptor, inodeOf(descriptor), surroundings, options);
      if (found !== undefined && !found.passes) refuse(found.refusal);
    }
  },

  dump(descriptor, id, taken, context) {
    const sockets = socketsOf(context);
    const inode = inodeOf(descriptor);
    const diag = sockets.all.get(inode);
    if (diag === undefined)
      return refuseNow(context, descriptor, 'it is a Unix socket of another network namespace');
    const external = isExternal(diag, context.options);
    const queue =
      diag.state === STATE.listen || external ? undefined : peekQueue(taken, diag.type, descriptor, context);
    for (const { rights } of queue?.packets ?? []) for (const fd of rights) sockets.inFlight.add(fd);
    if (queue?.problem !== undefined) refuseNow(context, descriptor, queue.problem);
    const { entry, extras } = entryOf(descriptor, id, taken, diag, context);
    const identity = { family: S.AF_UNIX, type: diag.type, protocol: 0, inode };
    dumpMoreOptions(taken, id, identity, descriptor, context);
    if (queue !== undefined && queue.peekOffset >= 0) extras.peekOffset = queue.peekOffset;
    if (queue?.hasError === true) extras.hasError = true;
    const dumped = { descriptor, id, diag, entry, extras, packets: queue?.packets ?? [], rights: [] };
    sockets.byInode.set(inode, dumped);
    if (dumped.packets.length > 0) sockets.unread.push(dumped);
    return createMessage('files', { type: FD_TYPE.usk, id, usk: entry });
  },

  write(context) {
    const { sockets } = state(context);
    if (sockets === undefined) return;
    const dumped = [...sockets.byInode.values()];
    const records = dumped.flatMap(({ id, packets, rights }) =>
      packets.map(({ bytes }, index) => ({
        message: createMessage('sk-queues', {
          idFor: id,
          length: bytes.length,
          scm:
            (rights[index] ?? []).length === 0
              ? []
              : [{ type: S.SCM_RIGHTS, rights: [...(rights[index] ?? [])] }],
        }),
        raw: [bytes],
      })),
    );
    if (records.length > 0) context.writer.writeRecords('sk-queues', null, records);
    writeBeside(context);
    writeExtras(new Map(dumped.map(({ id, extras }) => [id, extras])), context.writer);
  },

  open(entry, holder) {
    if (entry.usk === undefined) throw new ImageError('files.img', `file ${entry.id} is no Unix socket`);
    build(holder);
    return holder.tape.call('dup', [holder.slot(`file:${entry.id}`)]);
  },

  connect(_entry, holder) {
    fill(holder);
  },
};

function inodeOf({ info }: Descriptor): number {
  return Number(info.stat.ino);
}

/** The sockets of this dump; what is in flight in them, and what they are to each other, is seen to after all tables. */
function socketsOf(context: DumpContext): Sockets {
  const held = state(context);
  if (held.sockets !== undefined) return held.sockets;
  const sockets = new Sockets();
  held.sockets = sockets;
  // Where the dump fails before that; whoever waits for the end of a pipe must not wait for us.
  context.keep({ release: () => closeAll([...sockets.inFlight]) });
  context.files.defer(() => {
    for (let next = sockets.unread.shift(); next !== undefined; next = sockets.unread.shift())
      collectInFlight(next, sockets, context);
    relate(sockets, context);
  });
  return sockets;
}

function entryOf(
  descriptor: Descriptor,
  id: number,
  taken: number,
  diag: UnixDiag,
  context: DumpContext,
): Pick<Dumped, 'entry' | 'extras'> {
  const name = diag.name ?? new Uint8Array();
  const file = isPath(name) ? boundFile(taken, name) : undefined;
  const namespace = socketsOf(context).namespaceOf(descriptor.process.pid, context);
  const made = createMessage('files', {
    type: FD_TYPE.usk,
    id,
    usk: {
      id,
      ino: diag.inode,
      type: diag.type,
      state: diag.state,
      flags: descriptor.info.info.flags & ~O_CLOEXEC,
      uflags: 0,
      backlog: diag.state === STATE.listen ? diag.queues[1] : 0,
      peer: diag.peer ?? 0,
      fown: dumpOwner(descriptor, taken, context),
      opts: dumpOptions(taken),
      name,
      ...(diag.shutdown === 0 ? {} : { shutdown: diag.shutdown }),
      ...(file === undefined ? {} : { filePerms: { mode: file.mode, uid: file.uid, gid: file.gid } }),
      ...(file?.directory === undefined ? {} : { nameDir: file.directory }),
      ...(file?.isDeleted === true ? { deleted: true } : {}),
      ...(namespace === undefined ? {} : { nsId: namespace }),
    },
  });
  const { usk } = made;
  if (usk === undefined) throw new Error('a message without its member');
  const peer = peerOf(taken, context);
  const left = diag.peer === 0 ? peerName(taken) : undefined;
  const extras = {
    ...(peer === undefined ? {} : { peer }),
    ...(diag.peer === 0 && diag.type === S.SOCK_DGRAM ? { hasLostPeer: true as const } : {}),
    ...(left === undefined ? {} : { peerName: left }),
    ...(file?.movedTo === undefined ? {} : { movedTo: file.movedTo }),
  };
  return { entry: usk, extras };
}

/** Files in flight get their ids; one that only is in flight is dumped here, with what is in flight in it. */
function collectInFlight(dumped: Dumped, { inFlight }: Sockets, context: DumpContext): void {
  dumped.rights = dumped.packets.map(({ rights }) =>
    rights.map((fd) => {
      inFlight.delete(fd);
      return context.files.addTaken(fd, dumped.descriptor);
    }),
  );
  const packets = dumped.packets.map(({ from, sender }) => ({
    ...(from === undefined ? {} : { from }),
    ...(sender === undefined
      ? {}
      : { sender: [insidePid(sender[0], context), sender[1], sender[2]] as const }),
  }));
  if (packets.some((packet) => Object.keys(packet).length > 0)) dumped.extras.packets = packets;
}

/** Every socket of the tree is known: who waits for whom, and who is outside. */
function relate(sockets: Sockets, context: DumpContext): void {
  const surroundings = surround(sockets.all, sockets.byInode);
  for (const dumped of sockets.byInode.values()) {
    const { descriptor, diag, entry, extras } = dumped;
    const found = judge(descriptor, diag.inode, surroundings, context.options);
    if (found?.passes === true) context.retry(found.refusal);
    if (found !== undefined) {
      const { reason, help } = found.refusal;
      refuseNow(context, descriptor, reason, help);
    }
    const listener = surroundings.listeners.get(diag.inode);
    if (listener !== undefined) {
      entry.peer = listener.inode;
      extras.self = selfOf(descriptor);
    }
    if (extras.hasError === true && !isErrorKnown(dumped, sockets))
      refuseNow(
        context,
        descriptor,
        'an error is pending that cannot be made again',
        'let the program read it first',
      );
    if (diag.waiting.length > 0)
      extras.waiting = diag.waiting.map((inode) => sockets.byInode.get(inode)?.id ?? 0);
  }
  nameOutside(sockets, context);
}

/** ECONNRESET of a peer that was closed, or has left a pair, with something unread. */
function isErrorKnown({ diag }: Dumped, { byInode }: Sockets): boolean {
  if (diag.peer === 0) return true;
  const peer = byInode.get(diag.peer ?? 0)?.diag;
  return (
    diag.type === S.SOCK_DGRAM && peer !== undefined && peer.name === undefined && peer.peer !== diag.inode
  );
}

/** Sockets outside of the tree that those of it are connected to by name, as CRIU notes them. */
function nameOutside(sockets: Sockets, context: DumpContext): void {
  const outside = new Set<UnixDiag>();
  for (const { diag } of sockets.byInode.values()) {
    const peer = sockets.all.get(diag.peer ?? 0);
    if (peer !== undefined && !sockets.byInode.has(peer.inode)) outside.add(peer);
  }
  for (const { inode, name } of outside)
    context.files.add(
      (id): file_entry =>
        createMessage('files', {
          type: FD_TYPE.usk,
          id,
          usk: {
            id,
            ino: inode,
            type: S.SOCK_DGRAM,
            state: STATE.listen,
            flags: 0,
            uflags: USK_EXTERN,
            backlog: 0,
            peer: 0,
            fown: { uid: 0, euid: 0, signum: 0, pidType: 0, pid: 0 },
            opts: {
              soSndbuf: 0,
              soRcvbuf: 0,
              soSndTmoSec: 0n,
              soSndTmoUsec: 0n,
              soRcvTmoSec: 0n,
              soRcvTmoUsec: 0n,
            },
            name: name ?? new Uint8Array(),
          },
        }),
    );
}
