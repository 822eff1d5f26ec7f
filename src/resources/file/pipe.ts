import {
  F_GETPIPE_SZ,
  F_SETFL,
  O_ACCMODE,
  O_CLOEXEC,
  O_DIRECT,
  O_LARGEFILE,
  O_RDONLY,
  O_WRONLY,
} from '../../abi/fcntl.js';
import { FIONREAD } from '../../abi/ioctl.js';
import { createMessage, type fown_entry, ImageError, type pipe_entry } from '../../image/index.js';
import type { Descriptor, FileKind, file_entry, Holder, Refuse, Result } from '../contract.js';
import { lacksOtherEnd, takeIfOpen } from '../description/calls.js';
import { refusalOf } from '../description/described.js';
import { duplicate } from '../description/holder.js';
import { dumpOwner, nobody, restoreOwner } from '../description/owner.js';
import { freshPair } from '../description/pair.js';
import { perDump, perRestore } from '../description/state.js';
import { setStatusFlags } from '../description/status-flags.js';
import { FD_TYPE } from '../description/types.js';
import { dumpContents, fill, noContents, type PipeContents } from './pipe-data.js';
import { readPackets, writePackets } from './pipe-packets.js';
import { slotPath } from './unlinked.js';

/**
 * pipe(2): two ends of one inode, whose number is the pipe's id in the image; contents and size are in
 * pipes-data.img. A description that has O_LARGEFILE was opened through /proc/PID/fd, and is so again; one without
 * is of pipe2(2) itself, one an end.
 */
const LINK = /^pipe:\[(\d+)\]$/;

const dumped = perDump(() => new Map<number, PipeContents>());

export const pipe: FileKind = {
  name: 'pipe',
  support: 'both ends, size, contents, packet mode; ends outside the tree by --inherit-fd',
  member: 'pipe',

  recognise: ({ info }) => LINK.test(info.link),

  checkAll(descriptors, refuse, options) {
    if (options.outsidePipes === true) return;
    for (const [link, ends] of byLink(descriptors)) {
      if (!options.external.includes(link)) checkEnds(ends, refuse);
    }
  },

  dump(descriptor, id, taken, context) {
    const { info } = descriptor;
    const pipeId = idOf(info.link);
    const contents = dumped(context);
    const known = contents.get(pipeId);
    const packets = (info.info.flags & O_DIRECT) !== 0;
    // Bounds of packets are looked for once a description in packet mode turns up.
    if (known === undefined || (packets && known.packets === undefined))
      contents.set(pipeId, dumpContents(pipeId, taken, packets));
    return entryOf(descriptor, id, dumpOwner(descriptor, taken, context));
  },

  /** Of an empty one. */
  ask({ info }, { tape, taken, conditions }) {
    const pipeId = idOf(info.link);
    const size = tape.call('fcntl', [taken, F_GETPIPE_SZ, 0], 'any');
    const count = tape.space(4);
    const counted = tape.call('ioctl', [taken, FIONREAD, count], 'any');
    conditions.within(size, 1);
    conditions.equals(counted, 0);
    conditions.equals({ kind: 'inside', space: count, at: 0 }, 0);
    return (descriptor, id, { played, signum }, context) => {
      const contents = dumped(context);
      if (!contents.has(pipeId)) contents.set(pipeId, noContents(pipeId, played.number(size)));
      return entryOf(descriptor, id, nobody(signum));
    };
  },

  write(context) {
    const contents = [...dumped(context).values()];
    if (contents.length === 0) return;
    context.writer.writeRecords(
      'pipes-data',
      null,
      contents.map(({ entry, bytes }) => ({ message: entry, raw: [bytes] })),
    );
    writePackets(contents, context.writer);
  },

  open(entry, holder) {
    const pipe = pipeOf(entry);
    const fd = openEnd(pipe, holder);
    setStatusFlags(holder.tape, fd, pipe.flags);
    restoreOwner(`file:${pipe.id}`, pipe.fown, holder);
    return fd;
  },
};

function entryOf({ info }: Descriptor, id: number, fown: fown_entry): file_entry {
  const pipe = { id, pipeId: idOf(info.link), flags: info.info.flags & ~O_CLOEXEC, fown };
  return createMessage('files', { type: FD_TYPE.pipe, id, pipe });
}

function pipeOf(entry: file_entry): pipe_entry {
  if (entry.pipe === undefined) throw new ImageError('files.img', `file ${entry.id} is no pipe`);
  return entry.pipe;
}

function idOf(link: string): number {
  return Number(BigInt(LINK.exec(link)?.[1] ?? 0) & 0xffff_ffffn);
}

function byLink(descriptors: readonly Descriptor[]): Map<string, Descriptor[]> {
  const groups = new Map<string, Descriptor[]>();
  for (const descriptor of descriptors) {
    const { link } = descriptor.info;
    const group = groups.get(link);
    if (group === undefined) groups.set(link, [descriptor]);
    else group.push(descriptor);
  }
  return groups;
}

/** Of a pipe with one end in the tree, the other is closed or outside; poll(2) of a duplicate tells which. */
function checkEnds(ends: readonly Descriptor[], refuse: Refuse): void {
  const modes = new Set(ends.map(({ info }) => info.info.flags & O_ACCMODE));
  if (modes.size > 1) return;
  const [end] = ends;
  const mode = [...modes][0];
  if (end === undefined || (mode !== O_RDONLY && mode !== O_WRONLY)) return;
  using taken = takeIfOpen(end.process.pid, end.fd, refusalOf(end, '').object);
  if (taken === undefined || lacksOtherEnd(taken.fd)) return;
  refuse(
    refusalOf(
      end,
      `it is one end of a pipe, and who ${mode === O_RDONLY ? 'writes' : 'reads'} at the other is not in the tree`,
      `redirect it, or use --external ${end.info.link}, and --inherit-fd fd[N]:${end.info.link} at restore`,
    ),
  );
}

/** What is known of one pipe of the image while it is rebuilt. */
interface Rebuilt {
  /** Keys of the ends of pipe2(2), until a description takes each. */
  readonly fresh: Map<number, string>;
  /** By which key it is opened anew. */
  readonly key: string;
}

const rebuilt = perRestore(() => new Map<number, Rebuilt>());

function openEnd(pipe: pipe_entry, holder: Holder): Result {
  const { tape } = holder;
  const { fresh, key } = rebuiltOf(pipe.pipeId, holder);
  const mode = pipe.flags & O_ACCMODE;
  const original = (pipe.flags & O_LARGEFILE) === 0 ? fresh.get(mode) : undefined;
  if (original === undefined) return tape.call('open', [tape.string(slotPath(key, holder)), mode, 0]);
  fresh.delete(mode);
  return duplicateSlot(original, holder);
}

/** Another descriptor of the same description. */
function duplicateSlot(key: string, holder: Holder): Result {
  return holder.tape.call('dup', [holder.slot(key)]);
}

function rebuiltOf(id: number, holder: Holder): Rebuilt {
  const known = rebuilt(holder).get(id);
  if (known !== undefined) return known;
  const made = inheritedPipe(id, holder) ?? newPipe(id, holder);
  rebuilt(holder).set(id, made);
  return made;
}

function inheritedPipe(id: number, holder: Holder): Rebuilt | undefined {
  const fd = holder.options.inheritFds.get(`pipe:[${id}]`);
  if (fd === undefined) return undefined;
  const key = `inherited pipe:${id}`;
  holder.hold(key, holder.bring(duplicate(fd)));
  return { fresh: new Map(), key };
}

function newPipe(id: number, holder: Holder): Rebuilt {
  const { tape } = holder;
  const keys = { read: `pipe:${id}:read`, write: `pipe:${id}:write` };
  const [read, write] = freshPair(holder, (pair) => tape.call('pipe2', [pair, O_CLOEXEC]));
  const contents = contentsOf(holder).get(id);
  const packets = contents?.packets !== undefined;
  // A write is a packet of its own when the description is in packet mode at that time.
  if (packets) setStatusFlags(tape, write, O_DIRECT);
  if (contents !== undefined) fill(write, contents, holder);
  if (packets) tape.call('fcntl', [write, F_SETFL, 0]);
  holder.hold(keys.read, read);
  holder.hold(keys.write, write);
  return {
    key: keys.read,
    fresh: new Map([
      [O_RDONLY, keys.read],
      [O_WRONLY, keys.write],
    ]),
  };
}

const contentsOf = perRestore((holder) => {
  const packets = readPackets(holder.reader);
  const found = new Map<number, PipeContents>();
  for (const { message, raw } of holder.reader.recordsOptional('pipes-data') ?? [])
    found.set(message.pipeId, {
      entry: message,
      bytes: raw[0] ?? new Uint8Array(),
      packets: packets.get(message.pipeId),
    });
  return found;
});
