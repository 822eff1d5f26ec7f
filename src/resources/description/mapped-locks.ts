import type { ImageReader, ImageWriter } from '../../image/index.js';
import { isRecord, readJson } from '../../image/json.js';

/**
 * Locks by flock(2) whose description no descriptor has any more, only mappings of one process: how a Java virtual
 * machine keeps the file of its counters. CRIU's lock entries name a descriptor, so they are in a file of our own, which
 * CRIU ignores: an object of READ or WRITE by PID:START, the process's id in the image and the address of the mapping. The
 * files module finds them, memory takes them again where it maps the file.
 */
const FILE = 'stasis-mapped-locks.json';

export type MappedLocks = ReadonlyMap<string, 'READ' | 'WRITE'>;

export function keyOfMappedLock(insidePid: number, start: bigint): string {
  return `${insidePid}:${start.toString(16)}`;
}

export function writeMappedLocks(locks: MappedLocks, writer: ImageWriter): void {
  if (locks.size === 0) return;
  writer.writeBytes(FILE, [Buffer.from(JSON.stringify(Object.fromEntries(locks)))]);
}

export function readMappedLocks(reader: ImageReader): MappedLocks {
  return readJson(reader, FILE, decode) ?? new Map();
}

function decode(content: unknown): MappedLocks {
  if (!isRecord(content)) throw new Error('holds no object');
  return new Map(
    Object.entries(content).map(([key, type]) => {
      if (type !== 'READ' && type !== 'WRITE') throw new Error(`${key} is no type of lock`);
      return [key, type];
    }),
  );
}
