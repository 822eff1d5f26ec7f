import { createHash } from 'node:crypto';
import { closeSync } from 'node:fs';
import { ImageDirectory, writeAll } from './directory.js';
import { ImageError, reason } from './errors.js';
import { isRecord } from './json.js';
import { isRawFile, kindOfFile, pagemapOfFile } from './kinds.js';
import type { ImageReader } from './reader.js';
import { CHECKSUMS_FILE } from './writer.js';

/*
 * Digests of an image's files, in a file of our own that CRIU ignores. SHA-256, because it is what every Node has as
 * one native call and what current CPUs have instructions for (about 0.5 s per GiB with them); zlib.crc32 came only
 * with Node 20.15, and CRC-32 in JavaScript is no faster. It also holds against intent, if this file is kept apart.
 * Long files have a digest per chunk, so that pages can be checked as they are loaded; such a file's own digest is
 * that of its chunks' digests.
 */

const CHUNK_BYTES = 1024 * 1024;
const VERSION = 1;
const ALGORITHM = 'sha256';
const DIGEST_BYTES = 32;
const TEMPORARY = `${CHECKSUMS_FILE}.new`;

export interface FileChecksum {
  readonly bytes: number;
  /** Base64, as all digests here. */
  readonly digest: string;
  /** One for each MiB, for pages files. */
  readonly chunks?: readonly string[];
}

export type Checksums = ReadonlyMap<string, FileChecksum>;

export interface ChecksumProblem {
  readonly file: string;
  /** Where the chunk begins that differs, in bytes. */
  readonly offset?: number;
  readonly message: string;
}

function isPages(name: string): boolean {
  return name.startsWith('pages-');
}

/** Whether a file belongs to the image: logs, statistics and strangers' files may change afterwards. */
function isCovered(name: string): boolean {
  if (name.startsWith('stats-')) return false;
  if (name.startsWith('stasis-')) return name !== CHECKSUMS_FILE && name !== TEMPORARY;
  return isRawFile(name) || pagemapOfFile(name) !== undefined || kindOfFile(name) !== undefined;
}

/** One for all files: a tree has hundreds, and the memory of each is only given back by a full collection. */
let chunkBuffer: Buffer | undefined;

function digestFile(reader: ImageReader, name: string, beat?: () => void): FileChecksum {
  chunkBuffer ??= Buffer.allocUnsafeSlow(CHUNK_BYTES);
  const buffer = chunkBuffer;
  const chunks: string[] = [];
  const whole = createHash(ALGORITHM);
  const pages = isPages(name);
  let bytes = 0;
  for (;;) {
    const length = reader.readAt(name, buffer, bytes);
    if (length === 0) break;
    beat?.();
    bytes += length;
    const part = buffer.subarray(0, length);
    if (!pages) {
      whole.update(part);
      continue;
    }
    const chunk = createHash(ALGORITHM).update(part).digest();
    chunks.push(chunk.toString('base64'));
    whole.update(chunk);
  }
  const result = { bytes, digest: whole.digest('base64') };
  return pages ? { ...result, chunks } : result;
}

/** The digests of an image as it is now. */
function computeChecksums(reader: ImageReader): Checksums {
  const sums = new Map<string, FileChecksum>();
  for (const name of reader.list().filter(isCovered))
    if (reader.size(name) !== undefined) sums.set(name, digestFile(reader, name));
  return sums;
}

/** Adds the digests to an image that is complete; replaces earlier ones. */
export function writeChecksums(reader: ImageReader, sums: Checksums = computeChecksums(reader)): void {
  const files = Object.fromEntries(sums);
  const text = JSON.stringify({ version: VERSION, algorithm: ALGORITHM, chunk_bytes: CHUNK_BYTES, files });
  using directory = ImageDirectory.open(reader.directory);
  directory.remove(TEMPORARY);
  const fd = directory.createFile(TEMPORARY);
  try {
    writeAll(fd, Buffer.from(text));
  } finally {
    closeSync(fd);
  }
  directory.rename(TEMPORARY, CHECKSUMS_FILE);
}

function isDigest(value: unknown): value is string {
  return typeof value === 'string' && Buffer.from(value, 'base64').length === DIGEST_BYTES;
}

function parseEntry(value: unknown): FileChecksum | undefined {
  if (!isRecord(value)) return undefined;
  const { bytes, digest: sum, chunks } = value;
  if (typeof bytes !== 'number' || !Number.isSafeInteger(bytes) || bytes < 0 || !isDigest(sum))
    return undefined;
  if (chunks === undefined) return { bytes, digest: sum };
  if (!Array.isArray(chunks) || chunks.length !== Math.ceil(bytes / CHUNK_BYTES)) return undefined;
  return chunks.every(isDigest) ? { bytes, digest: sum, chunks } : undefined;
}

function parse(text: string): Checksums {
  const value: unknown = JSON.parse(text);
  if (!isRecord(value) || !isRecord(value.files)) throw new Error('no table of files');
  if (value.version !== VERSION || value.algorithm !== ALGORITHM || value.chunk_bytes !== CHUNK_BYTES) {
    throw new Error(`an unknown version (${value.version}) or algorithm (${value.algorithm})`);
  }
  const sums = new Map<string, FileChecksum>();
  for (const [name, entry] of Object.entries(value.files)) {
    const sum = parseEntry(entry);
    if (sum === undefined) throw new Error(`the entry of ${name} is malformed`);
    sums.set(name, sum);
  }
  return sums;
}

/** The digests an image was given; undefined when it has none. @throws ImageError when they cannot be understood */
export function readChecksums(reader: ImageReader): Checksums | undefined {
  const bytes = reader.bytes(CHECKSUMS_FILE);
  if (bytes === undefined) return undefined;
  try {
    return parse(Buffer.from(bytes).toString('utf8'));
  } catch (error) {
    throw new ImageError(`${reader.directory}/${CHECKSUMS_FILE}`, reason(error), { cause: error });
  }
}

function compare(
  reader: ImageReader,
  name: string,
  expected: FileChecksum,
  beat?: () => void,
): ChecksumProblem | undefined {
  const size = reader.size(name);
  if (size === undefined) return { file: name, message: 'is missing' };
  if (size !== expected.bytes)
    return { file: name, message: `has ${size} bytes instead of ${expected.bytes}` };
  const found = digestFile(reader, name, beat);
  if (found.digest === expected.digest) return undefined;
  const chunk = found.chunks?.findIndex((sum, index) => sum !== expected.chunks?.[index]) ?? -1;
  const message = 'its contents have changed';
  return chunk < 0 ? { file: name, message } : { file: name, offset: chunk * CHUNK_BYTES, message };
}

/**
 * What differs from the digests: files changed, missing, or added. Empty when all is as it was written. `beat` is called
 * for each chunk that was read, so that others see it going on.
 */
export function verifyChecksums(reader: ImageReader, sums: Checksums, beat?: () => void): ChecksumProblem[] {
  const problems: ChecksumProblem[] = [];
  for (const [name, expected] of sums) {
    const problem = compare(reader, name, expected, beat);
    if (problem !== undefined) problems.push(problem);
  }
  for (const name of reader.list().filter(isCovered)) {
    if (!sums.has(name)) problems.push({ file: name, message: 'has no checksum: it was added later' });
  }
  return problems;
}
