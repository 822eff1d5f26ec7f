import { readFileSync } from 'node:fs';
import type { DetailedMapping } from '../../kernel/procfs/smaps.js';

/** System V shared memory: /proc/sysvipc/shm (ipc/shm.c), one line a segment of the reader's IPC namespace. */
export interface Segment {
  readonly key: number;
  readonly shmid: number;
  /** Permission bits and SHM_DEST, SHM_LOCKED. */
  readonly mode: number;
  /** Bytes as asked for; mappings are of whole pages. */
  readonly size: number;
  readonly uid: number;
  readonly gid: number;
}

export function parseSegments(text: string): Segment[] {
  return text
    .split('\n')
    .slice(1)
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const [key, shmid, perms, size, , , , uid, gid] = line.trim().split(/\s+/);
      const segment = {
        key: Number(key) | 0,
        shmid: Number(shmid),
        mode: Number.parseInt(perms ?? '', 8),
        size: Number(size),
        uid: Number(uid),
        gid: Number(gid),
      };
      if (Object.values(segment).some(Number.isNaN))
        throw new Error(`/proc/sysvipc/shm: not a segment: ${line}`);
      return segment;
    });
}

export function readSegments(): Segment[] {
  return parseSegments(readFileSync('/proc/sysvipc/shm', 'latin1'));
}

/** The inode of a mapped segment is its id. */
export function segmentOf({ inode }: DetailedMapping): bigint {
  return inode;
}
