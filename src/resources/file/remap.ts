import { randomBytes } from 'node:crypto';
import { AT_EMPTY_PATH, AT_FDCWD } from '../../abi/fcntl.js';
import { createMessage, type MessageOf, type reg_file_entry } from '../../image/index.js';
import { SyscallError } from '../../kernel/errors.js';
import { scratch } from '../../kernel/memory.js';
import { attempt, syscall } from '../../kernel/syscall.js';
import type { Descriptor, DumpContext, DumpOptions, Refuse } from '../contract.js';
import { isPathOnly, pathBytes } from '../description/calls.js';
import { objectOf, refusalOf, refuseNow } from '../description/described.js';
import { perDump } from '../description/state.js';
import { FD_TYPE, REMAP } from '../description/types.js';
import { ghostBytes, writeGhost } from './ghost.js';
import { directoryOf, type Place, placeOf } from './place.js';

/**
 * Files whose name does not lead to them (remap-fpath.img): ghosts, of which the image has the contents; files that
 * got a temporary name beside the lost one (--link-remap); files below /proc of processes that have died.
 */
interface Remaps {
  readonly entries: MessageOf<'remap-fpath'>[];
  /** Ghost ids by device and inode: all names of one file are one ghost. */
  readonly ghosts: Map<string, number>;
  /** Ids of entries that name temporary links, by device and inode. */
  readonly links: Map<string, number>;
  /** Temporary names made, which a failed dump removes. */
  readonly made: string[];
}

const remapsOf = perDump<Remaps>(() => ({ entries: [], ghosts: new Map(), links: new Map(), made: [] }));

/** `/proc/12/…`; 12. */
export function procfsPid(path: string): number | undefined {
  const digits = /^\/proc\/(\d+)(\/|$)/.exec(path)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** A file of procfs or of a pts mount; their names are the kernel's, and cannot be made or linked. */
function isKernelMade(path: string): boolean {
  return path.startsWith('/proc/') || path.startsWith('/dev/pts/') || path.startsWith('/sys/');
}

/** Before the freeze: what `nameFor` would refuse. */
export function checkPlace(descriptor: Descriptor, refuse: Refuse, options: DumpOptions): void {
  const { stat, link } = descriptor.info;
  const place = placeOf(link, stat);
  if (place.kind === 'visible' || isKernelMade(place.path)) return;
  const problem = problemOf(place, descriptor, options);
  if (problem !== undefined) refuse(refusalOf(descriptor, problem.reason, problem.help));
}

/** Ghosts are read whole at the restore, and files of messages are limited to that (image/reader.ts). */
const GHOST_BYTES_MAX = 512 * 1024 * 1024 - 4096;

function problemOf(
  place: Place,
  { info }: Descriptor,
  options: DumpOptions,
): { reason: string; help?: string } | undefined {
  if (place.kind === 'unlinked') {
    const bytes = ghostBytes(info.stat);
    if (bytes <= BigInt(Math.min(options.ghostLimit, GHOST_BYTES_MAX))) return undefined;
    return {
      reason: `it was deleted and holds ${bytes} bytes, more than the ${options.ghostLimit} that are copied into an image`,
      help: `--ghost-limit ${bytes} or more`,
    };
  }
  if (place.kind === 'linked elsewhere') {
    if (options.linkRemap && !isPathOnly(info.info.flags)) return undefined;
    return {
      reason: 'it was deleted by this name but has another one, which is not known',
      help: 'use --link-remap to give it a temporary name beside the old one',
    };
  }
  if (place.kind === 'hidden')
    return {
      reason: 'its name leads to another file: a mount hides it, or it is of another mount namespace',
    };
  return undefined;
}

/**
 * Frozen: the name that goes into the file's entry, with a remap where it does not lead to the file. `opened` is a
 * descriptor of this process that is open on it in any way.
 */
export function nameFor(descriptor: Descriptor, id: number, opened: number, context: DumpContext): string {
  const { stat, link } = descriptor.info;
  const place = placeOf(link, stat);
  if (place.kind === 'visible') return place.path;
  const remaps = remapsOf(context);
  const pid = procfsPid(place.path);
  if (pid !== undefined) {
    // A thread or process that is there has a name that leads to it; so this one is dead.
    remaps.entries.push(createMessage('remap-fpath', { origId: id, remapId: pid, remapType: REMAP.procfs }));
    return place.path;
  }
  if (isKernelMade(place.path)) return place.path;
  const problem = problemOf(place, descriptor, context.options);
  if (problem !== undefined) refuseNow(context, descriptor, problem.reason, problem.help);
  const key = `${stat.dev}:${stat.ino}`;
  if (place.kind === 'unlinked') {
    const remapId = ghostId(key, descriptor, opened, context);
    remaps.entries.push(createMessage('remap-fpath', { origId: id, remapId, remapType: REMAP.ghost }));
  } else {
    const remapId = linkId(key, place.path, descriptor, opened, context);
    remaps.entries.push(createMessage('remap-fpath', { origId: id, remapId, remapType: REMAP.linked }));
  }
  return place.path;
}

function ghostId(key: string, descriptor: Descriptor, opened: number, context: DumpContext): number {
  const { ghosts } = remapsOf(context);
  const known = ghosts.get(key);
  if (known !== undefined) return known;
  const id = ghosts.size + 1;
  ghosts.set(key, id);
  writeGhost(context.writer, id, descriptor.info.stat, opened);
  return id;
}

/** A temporary name for a file beside the one it lost, and an entry of files.img with it. */
function linkId(
  key: string,
  path: string,
  descriptor: Descriptor,
  opened: number,
  context: DumpContext,
): number {
  const { links, made } = remapsOf(context);
  const known = links.get(key);
  if (known !== undefined) return known;
  const directory = directoryOf(path);
  const id = context.files.add((id) => {
    // Ids are small numbers: another image may have a name of the kind in the same directory.
    const name = `${directory === '/' ? '' : directory}/link_remap.${id}.${randomBytes(6).toString('hex')}`;
    context.undo?.((tape) => tape.call('unlink', [tape.string(pathBytes(name))], 'any'));
    link(opened, name, objectOf(descriptor));
    made.push(name);
    const { stat } = descriptor.info;
    const reg = { id, flags: 0, pos: 0n, fown: noOwner, name, mode: Number(stat.mode) };
    return createMessage('files', { type: FD_TYPE.reg, id, reg });
  });
  links.set(key, id);
  return id;
}

const noOwner: NonNullable<reg_file_entry['fown']> = {
  $typeName: 'fown_entry',
  uid: 0,
  euid: 0,
  signum: 0,
  pidType: 0,
  pid: 0,
};

/** linkat(2) of a descriptor: with AT_EMPTY_PATH it needs CAP_DAC_READ_SEARCH. */
function link(opened: number, name: string, what: string): void {
  const bytes = pathBytes(name);
  const at = scratch.address;
  scratch.bytes[0] = 0;
  scratch.bytes.set(bytes, 1);
  scratch.bytes[bytes.length + 1] = 0;
  const result = attempt('linkat', [opened, at, AT_FDCWD, at + 1n, AT_EMPTY_PATH]);
  if (result < 0) throw new SyscallError('linkat', -result, `${what}, as ${name}`);
}

/** A dump that failed leaves no temporary names. */
export function abandonRemaps(context: DumpContext): void {
  for (const name of remapsOf(context).made.splice(0)) {
    const bytes = pathBytes(name);
    scratch.bytes.set(bytes);
    scratch.bytes[bytes.length] = 0;
    syscall('unlink', [scratch.address], name);
  }
}

export function writeRemaps(context: DumpContext): void {
  const { entries } = remapsOf(context);
  if (entries.length > 0) context.writer.write('remap-fpath', null, entries);
}
