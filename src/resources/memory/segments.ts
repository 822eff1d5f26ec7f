import { closeSync } from 'node:fs';
import { AT_FDCWD, O_CLOEXEC, O_RDONLY } from '../../abi/fcntl.js';
import { isRecord, readJson } from '../../image/json.js';
import type { ImageReader } from '../../image/reader.js';
import type { ImageWriter } from '../../image/writer.js';
import { scratchString } from '../../kernel/memory.js';
import { mapFilePath } from '../../kernel/procfs/maps.js';
import { syscall } from '../../kernel/syscall.js';
import { nameOf, type Process } from '../contract.js';
import { copyContents } from './contents.js';
import type { PagesFiles } from './pages-file.js';
import { readSegments, type Segment } from './sysv.js';
import type { Vma } from './vma.js';

/**
 * System V segments of the host's IPC namespace that a tree has attached. CRIU refuses them, so their image is a file
 * of our own: what `/proc/sysvipc/shm` said of each, with the contents in pagemaps under ids that no inode has.
 */
const FILE = 'stasis-sysv-shm.json';

/** Above every inode number of the kernel's tmpfs, which has 32 bits. */
const ID_BASE = 2n ** 40n;

export function pagesIdOf(shmid: number): bigint {
  return ID_BASE + BigInt(shmid);
}

/** Answers the number of pages. */
export function dumpSegments(
  attached: ReadonlyMap<bigint, { process: Process; vma: Vma }>,
  pages: PagesFiles,
  writer: ImageWriter,
): number {
  if (attached.size === 0) return 0;
  const known = new Map(readSegments().map((segment) => [segment.shmid, segment]));
  const segments: Segment[] = [];
  let count = 0;
  for (const [shmid, { process, vma }] of attached) {
    const segment = known.get(Number(shmid));
    if (segment === undefined)
      throw new Error(`${nameOf(process)}: System V segment ${shmid} is not one of this IPC namespace`);
    segments.push(segment);
    const path = mapFilePath(process.pid, vma.mapping);
    const source = syscall('openat', [AT_FDCWD, scratchString(path), O_RDONLY | O_CLOEXEC, 0], path);
    try {
      count += pages.add(pagesIdOf(segment.shmid), { shmem: true }, (target, tell) =>
        copyContents(source, segment.size, target, `System V segment ${shmid}`, tell),
      );
    } finally {
      closeSync(source);
    }
  }
  writer.writeBytes(FILE, [Buffer.from(`${JSON.stringify(segments, undefined, 1)}\n`)]);
  return count;
}

/** The segments of an image; none where the file is missing. */
export function segmentsOf(reader: ImageReader): Segment[] {
  return readJson(reader, FILE, decode) ?? [];
}

function decode(content: unknown): Segment[] {
  if (!Array.isArray(content)) throw new Error('is no list of segments');
  return content.map(segmentFrom);
}

const KEYS = ['key', 'shmid', 'mode', 'size', 'uid', 'gid'] as const;

function segmentFrom(item: unknown): Segment {
  const record = isRecord(item) ? item : {};
  for (const key of KEYS)
    if (!Number.isSafeInteger(record[key])) throw new Error(`has a segment without a number for ${key}`);
  return record as unknown as Segment;
}
