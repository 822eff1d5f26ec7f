import { O_CLOEXEC, O_DIRECT, O_NOFOLLOW, O_NONBLOCK, O_RDWR, S_IFIFO, S_IFMT } from '../../abi/fcntl.js';
import {
  createMessage,
  encodeName,
  type fifo_entry,
  ImageError,
  type reg_file_entry,
} from '../../image/index.js';
import type { DumpContext, FileKind, file_entry, Holder, Result } from '../contract.js';
import { isPathOnly } from '../description/calls.js';
import { dumpOwner, restoreOwner } from '../description/owner.js';
import { perDump, perRestore } from '../description/state.js';
import { setStatusFlags } from '../description/status-flags.js';
import { FD_TYPE, REMAP } from '../description/types.js';
import { dumpContents, fill, type PipeContents } from './pipe-data.js';
import { checkPlace, nameFor } from './remap.js';
import { ghostKey, slotPath } from './unlinked.js';

/**
 * Named FIFOs: an entry for the pipe (fifo_entry) and one for the name (reg_file_entry). Contents are in
 * fifo-data.img. Opening one waits for the other end (fifo(7)), so it is opened for both first, which never waits;
 * that one goes with the holder.
 */
interface Dumped {
  /** Ids in the image: inode numbers, changed where two file systems have the same. */
  readonly ids: Map<string, number>;
  readonly contents: Map<number, PipeContents>;
}

const dumped = perDump<Dumped>(() => ({ ids: new Map(), contents: new Map() }));

export const fifo: FileKind = {
  name: 'fifo',
  support: 'named FIFOs: flags, size, contents; removed ones too',
  member: 'fifo',

  recognise: ({ info }) =>
    (Number(info.stat.mode) & S_IFMT) === S_IFIFO &&
    info.link.startsWith('/') &&
    !isPathOnly(info.info.flags),

  check: checkPlace,

  dump(descriptor, id, taken, context) {
    const { info } = descriptor;
    const flags = info.info.flags & ~O_CLOEXEC;
    const pipeId = idOf(`${info.stat.dev}:${info.stat.ino}`, info.stat.ino, context);
    const { contents } = dumped(context);
    if (!contents.has(pipeId)) contents.set(pipeId, dumpContents(pipeId, taken, (flags & O_DIRECT) !== 0));
    const regfId = context.files.add((regId) => {
      const reg = {
        id: regId,
        flags,
        pos: 0n,
        fown: dumpOwner(descriptor, taken, context),
        name: nameFor(descriptor, regId, taken, context),
        mode: Number(info.stat.mode),
      };
      return createMessage('files', { type: FD_TYPE.reg, id: regId, reg });
    });
    return createMessage('files', { type: FD_TYPE.fifo, id, fifo: { id, pipeId, regfId } });
  },

  write(context) {
    const contents = [...dumped(context).contents.values()];
    if (contents.length === 0) return;
    context.writer.writeRecords(
      'fifo-data',
      null,
      contents.map(({ entry, bytes }) => ({ message: entry, raw: [bytes] })),
    );
  },

  open(entry, holder) {
    const fifo = fifoOf(entry);
    const reg = named(holder).get(fifo.regfId);
    if (reg === undefined)
      throw new ImageError('files.img', `FIFO ${fifo.id}: there is no file ${fifo.regfId} with its name`);
    const path = ready(fifo, reg, holder);
    const { tape } = holder;
    const flags = reg.flags & ~O_DIRECT & ~O_NOFOLLOW;
    const fd = tape.call('open', [tape.string(encodeName(path)), flags, 0]);
    setStatusFlags(tape, fd, reg.flags);
    restoreOwner(`file:${entry.id}`, reg.fown, holder);
    return fd;
  },
};

function idOf(key: string, inode: bigint, context: DumpContext): number {
  const { ids } = dumped(context);
  const known = ids.get(key);
  if (known !== undefined) return known;
  const taken = new Set(ids.values());
  let id = Number(inode & 0xffff_ffffn);
  while (taken.has(id)) id = (id + 1) >>> 0;
  ids.set(key, id);
  return id;
}

function fifoOf(entry: file_entry): fifo_entry {
  if (entry.fifo === undefined) throw new ImageError('files.img', `file ${entry.id} is no FIFO`);
  return entry.fifo;
}

const named = perRestore((holder) => {
  const files = new Map<number, reg_file_entry>();
  for (const { reg } of holder.reader.read('files')) if (reg !== undefined) files.set(reg.id, reg);
  return files;
});

const ghosts = perRestore((holder) => {
  const remaps = holder.reader.readOptional('remap-fpath') ?? [];
  const ghosts = remaps.filter(({ remapType }) => (remapType ?? REMAP.ghost) === REMAP.ghost);
  return new Map(ghosts.map(({ origId, remapId }) => [origId, remapId]));
});

const opened = perRestore(() => new Map<number, string>());

/** The path to open it by; at the first time it is made ready, open for both and filled. */
function ready(fifo: fifo_entry, reg: reg_file_entry, holder: Holder): string {
  const known = opened(holder).get(fifo.pipeId);
  if (known !== undefined) return known;
  const { tape } = holder;
  const ghost = ghosts(holder).get(reg.id);
  const path = ghost === undefined ? reg.name : slotPath(ghostKey(ghost, reg.name, holder), holder);
  const key = `fifo:${fifo.pipeId}`;
  const both: Result = tape.call('open', [tape.string(encodeName(path)), O_RDWR | O_NONBLOCK | O_CLOEXEC, 0]);
  const contents = contentsOf(holder).get(fifo.pipeId);
  if (contents !== undefined) fill(both, contents, holder);
  holder.hold(key, both);
  opened(holder).set(fifo.pipeId, path);
  return path;
}

const contentsOf = perRestore((holder) => {
  const found = new Map<number, PipeContents>();
  for (const { message, raw } of holder.reader.recordsOptional('fifo-data') ?? [])
    found.set(message.pipeId, { entry: message, bytes: raw[0] ?? new Uint8Array(), packets: undefined });
  return found;
});
