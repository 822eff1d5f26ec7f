import type { ImageReader, ImageWriter } from '../../image/index.js';
import { isRecord, readJson } from '../../image/json.js';
import type { PipeContents } from './pipe-data.js';

/**
 * Where the packets in pipes in packet mode end. CRIU's format has no place for that, so it is a file of our own,
 * which CRIU ignores: an object of arrays of lengths by the pipe's id.
 */
const FILE = 'stasis-packets.json';

export function writePackets(contents: readonly PipeContents[], writer: ImageWriter): void {
  const packets: Record<string, readonly number[]> = {};
  for (const { entry, packets: lengths } of contents)
    if (lengths !== undefined && lengths.length > 1) packets[entry.pipeId] = lengths;
  if (Object.keys(packets).length > 0) writer.writeBytes(FILE, [Buffer.from(JSON.stringify(packets))]);
}

export function readPackets(reader: ImageReader): Map<number, readonly number[]> {
  return readJson(reader, FILE, decode) ?? new Map();
}

function decode(content: unknown): Map<number, readonly number[]> {
  if (!isRecord(content)) throw new Error('holds no object');
  return new Map(Object.entries(content).map(([id, lengths]) => [Number(id), lengthsOf(id, lengths)]));
}

function lengthsOf(id: string, lengths: unknown): number[] {
  if (!Array.isArray(lengths) || !lengths.every((length) => Number.isSafeInteger(length) && length >= 0))
    throw new Error(`${id} has no list of lengths`);
  return lengths as number[];
}
