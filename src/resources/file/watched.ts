import { fstatSync, readlinkSync } from 'node:fs';
import { create } from '@bufbuild/protobuf';
import { type fh_entry, fh_entrySchema } from '../../image/index.js';
import { listDescriptors, readDescriptor } from '../../kernel/procfs/descriptors.js';
import { unlessVanished } from '../../kernel/procfs/error.js';
import type { FileHandle } from '../../kernel/procfs/fdinfo.js';
import { readMaps } from '../../kernel/procfs/maps.js';
import type { Descriptor, DumpOptions, Process, Refuse } from '../contract.js';
import { kernelDevice } from '../description/calls.js';
import { refusalOf } from '../description/described.js';
import { HANDLE_BYTES_MAX, openHandle } from './handle.js';
import { findInode } from './inode-search.js';
import { sameInode, statOrNone } from './place.js';

/**
 * What inotify and fanotify watch. The kernel shows an inode's number, its file system's device and a handle
 * (fs/notify/fdinfo.c), but no name. The handle leads to the file and that to a name, which goes into the image: another
 * file system has other inodes. Where there is no name the image has the handle alone; of a file that was deleted whoever
 * has it open saves the contents, and the restore finds it among those by its numbers.
 */
export interface Watched {
  /** As the kernel keeps it (MKDEV). */
  readonly device: number;
  readonly inode: bigint;
  readonly handle: FileHandle | undefined;
}

type Found =
  | { readonly kind: 'path'; readonly path: string }
  /** It has a name, but one that is not known; the handle finds it on this very file system. */
  | { readonly kind: 'handle' | 'unlinked' | 'lost' };

function find({ device, inode, handle }: Watched, options: DumpOptions): Found {
  using opened = handle === undefined ? undefined : openHandle(handle, device);
  if (opened !== undefined) {
    const link = readlinkSync(`/proc/self/fd/${opened.fd}`);
    const stat = fstatSync(opened.fd, { bigint: true });
    const named = statOrNone(link);
    if (named !== undefined && sameInode(named, stat)) return { kind: 'path', path: link };
    if (stat.nlink === 0n) return { kind: 'unlinked' };
    if (options.forceIrmap !== true) return { kind: 'handle' };
  }
  const path = findInode(device, inode, options.irmapScanPaths ?? []);
  if (path !== undefined) return { kind: 'path', path };
  return { kind: opened === undefined ? 'lost' : 'handle' };
}

/** Before the freeze: refuses what a restore would not find again. `what` is "watch 3". */
export function checkWatched(
  watched: Watched,
  what: string,
  descriptor: Descriptor,
  refuse: Refuse,
  options: DumpOptions,
): void {
  const { kind } = find(watched, options);
  const inode = `inode ${watched.inode} of device ${watched.device >>> 20}:${watched.device & 0xfffff}`;
  if (kind === 'lost')
    refuse(
      refusalOf(
        descriptor,
        `${what} is on ${inode}, whose name was not found, and its file system has no handles to open it by`,
        'name a directory it is below: --irmap-scan-path DIR',
      ),
    );
  if (kind === 'unlinked' && !isOpenInTree(watched, descriptor.process))
    refuse(
      refusalOf(
        descriptor,
        `${what} is on ${inode}, which was deleted and is open only outside of the tree`,
        'let the program remove the watch',
      ),
    );
}

function isOpenInTree(watched: Watched, member: Process): boolean {
  let root = member;
  while (root.parent !== undefined) root = root.parent;
  for (const waiting = [root]; ; ) {
    const process = waiting.pop();
    if (process === undefined) return false;
    if (process.state !== 'zombie' && unlessVanished(() => hasOpen(process.pid, watched)) === true)
      return true;
    waiting.push(...process.children);
  }
}

function hasOpen(pid: number, { device, inode }: Watched): boolean {
  for (const fd of listDescriptors(pid)) {
    const stat = unlessVanished(() => readDescriptor(pid, fd).stat);
    if (stat?.ino === inode && kernelDevice(stat.dev) === device) return true;
  }
  return readMaps(pid).some(
    (mapping) => mapping.inode === inode && ((mapping.major << 20) | mapping.minor) >>> 0 === device,
  );
}

/** The image's part about one watch. */
export function handleEntry(watched: Watched, options: DumpOptions): fh_entry {
  const { handle } = watched;
  const found = find(watched, options);
  const bytes = Buffer.alloc(HANDLE_BYTES_MAX);
  if (handle !== undefined) Buffer.from(handle.handle, 'hex').copy(bytes);
  const words: bigint[] = [];
  for (let at = 0; at < bytes.length; at += 8) words.push(bytes.readBigUInt64LE(at));
  return create(fh_entrySchema, {
    bytes: handle?.bytes ?? 0,
    type: handle?.type ?? 0,
    handle: words,
    ...(found.kind === 'path' ? { path: found.path } : {}),
  });
}
