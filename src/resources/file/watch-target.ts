import { O_CLOEXEC, O_NOFOLLOW, O_PATH, O_RDONLY } from '../../abi/fcntl.js';
import { encodeName, type fh_entry, ImageError, kindOfFile } from '../../image/index.js';
import type { Holder } from '../contract.js';
import { perRestore } from '../description/state.js';
import { readGhost } from './ghost-image.js';
import { HANDLE_BYTES_MAX, handleBytes, mountsOf } from './handle.js';
import { statOrNone } from './place.js';
import { MissingFileError } from './regular.js';
import { ghostKey, slotPath } from './unlinked.js';

/**
 * At restore: what is watched, as an O_PATH descriptor of the holder, by which inotify_add_watch(2) and
 * fanotify_mark(2) are led to it through /proc/self/fd. Its key begins with `watch:` or `ghost:`, which the holder keeps
 * to the last.
 */
export interface Target {
  readonly device: number;
  readonly inode: bigint;
  readonly handle: fh_entry;
}

/** Entries on the holder's tape that open it, and the path by which it will then be found. */
export function openTarget({ device, inode, handle }: Target, holder: Holder): string {
  if (handle.path !== '') return openPathTarget(handle.path, holder);
  const ghost = ghosts(holder).get(`${device}:${inode}`);
  if (ghost !== undefined) return slotPath(ghostKey(ghost.id, ghost.path, holder), holder);
  return openByHandle(device, inode, handle, holder);
}

/** A name of the image, also of a mount. */
export function openPathTarget(path: string, holder: Holder): string {
  const key = `watch:${path}`;
  if (!opened(holder).has(key)) {
    opened(holder).add(key);
    if (statOrNone(path) === undefined)
      throw new MissingFileError(`${path} is missing, which the image watches`);
    const { tape } = holder;
    holder.hold(key, tape.call('open', [tape.string(encodeName(path)), O_PATH | O_NOFOLLOW | O_CLOEXEC, 0]));
  }
  return slotPath(key, holder);
}

function openByHandle(device: number, inode: bigint, entry: fh_entry, holder: Holder): string {
  const key = `watch:${device}:${inode}`;
  if (!opened(holder).has(key)) {
    opened(holder).add(key);
    const [mount] = mountsOf(device);
    if (mount === undefined || entry.bytes === 0)
      throw new ImageError(
        'files.img',
        `inode ${inode} is watched, of which the image has no name, and its file system ${device >>> 20}:${device & 0xfffff} is not here`,
      );
    const { tape } = holder;
    const handle = tape.space(handleBytes(handleOf(entry)));
    const anchor = tape.call('open', [tape.string(encodeName(mount.mountPoint)), O_RDONLY | O_CLOEXEC, 0]);
    holder.hold(key, tape.call('open_by_handle_at', [anchor, handle, O_PATH | O_NOFOLLOW | O_CLOEXEC]));
    tape.call('close', [anchor]);
  }
  return slotPath(key, holder);
}

const opened = perRestore(() => new Set<string>());

function handleOf({ bytes, type, handle }: fh_entry) {
  const all = Buffer.alloc(HANDLE_BYTES_MAX);
  handle.slice(0, HANDLE_BYTES_MAX / 8).forEach((word, index) => {
    all.writeBigUInt64LE(word, index * 8);
  });
  const length = Math.min(bytes, HANDLE_BYTES_MAX);
  return { bytes: length, type, handle: all.subarray(0, length).toString('hex') };
}

/** Ghosts of the image by device and inode, each with a name it had. */
const ghosts = perRestore(({ reader }) => {
  const names = new Map(reader.read('files').map(({ reg }) => [reg?.id, reg?.name]));
  const paths = new Map<number, string>();
  for (const { origId, remapId } of reader.readOptional('remap-fpath') ?? []) {
    const name = names.get(origId);
    if (name !== undefined) paths.set(remapId, name);
  }
  const found = new Map<string, { readonly id: number; readonly path: string }>();
  for (const file of reader.list()) {
    const kind = kindOfFile(file);
    if (kind?.kind !== 'ghost-file') continue;
    const id = Number(kind.id);
    const { dev, ino } = readGhost(reader, id).entry;
    const path = paths.get(id);
    if (path !== undefined) found.set(`${dev}:${ino}`, { id, path });
  }
  return found;
});
