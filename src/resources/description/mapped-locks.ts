import { ImageError, type ImageReader, type ImageWriter } from '../../image/index.js';

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

const byReader = new WeakMap<ImageReader, MappedLocks>();

export function readMappedLocks(reader: ImageReader): MappedLocks {
  const known = byReader.get(reader);
  if (known !== undefined) return known;
  const bytes = reader.bytes(FILE);
  const locks = bytes === undefined ? new Map<string, 'READ' | 'WRITE'>() : parse(bytes);
  byReader.set(reader, locks);
  return locks;
}

function parse(bytes: Uint8Array): MappedLocks {
  const value: unknown = JSON.parse(Buffer.from(bytes).toString());
  if (typeof value !== 'object' || value === null) throw new ImageError(FILE, 'holds no object');
  return new Map(
    Object.entries(value).map(([key, type]) => {
      if (type !== 'READ' && type !== 'WRITE') throw new ImageError(FILE, `${key} is no type of lock`);
      return [key, type];
    }),
  );
}
