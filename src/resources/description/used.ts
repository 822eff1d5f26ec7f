import type { file_entry, ImageReader } from '../../image/index.js';
import { REMAP } from './types.js';

/** `uflags` of a Unix socket that is outside of the tree, and only named for those connected to it. */
export const USK_EXTERN = 1;

/**
 * Entries of files.img that only name something: the path of a FIFO or a terminal, the other name of a file, a socket
 * outside of the tree.
 */
export function namesOnly(reader: ImageReader, entries: readonly file_entry[]): Set<number> {
  const names = new Set<number>();
  for (const { id, fifo, tty, usk } of entries) {
    if (usk !== undefined && (usk.uflags & USK_EXTERN) !== 0) names.add(id);
    if (fifo !== undefined) names.add(fifo.regfId);
    if (tty !== undefined) names.add(tty.regfId);
  }
  for (const { remapId, remapType } of reader.readOptional('remap-fpath') ?? [])
    if (remapType === REMAP.linked) names.add(remapId);
  return names;
}

/**
 * Pids that have to exist while the holder's late tape is played, though no process of the image has them: files below
 * /proc/PID of processes that had died are open.
 */
export function helperPids(reader: ImageReader): number[] {
  const remaps = reader.readOptional('remap-fpath') ?? [];
  const pids = remaps.filter(({ remapType }) => remapType === REMAP.procfs).map(({ remapId }) => remapId);
  return [...new Set(pids)];
}
