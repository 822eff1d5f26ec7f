import { ImageError, reason } from './errors.js';
import type { ImageReader } from './reader.js';

/** An object of JSON, and so neither null nor a list. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const read = new WeakMap<ImageReader, Map<string, unknown>>();

/**
 * A file of ours beside CRIU's, undefined where the image has none (CRIU's own have not). `decode` throws an Error that
 * says what is wrong, and is asked once an image. Throws ImageError.
 */
export function readJson<T>(
  reader: ImageReader,
  file: string,
  decode: (content: unknown) => T,
): T | undefined {
  const known = read.get(reader) ?? new Map<string, unknown>();
  read.set(reader, known);
  // SAFETY: a file has one decoder.
  if (known.has(file)) return known.get(file) as T | undefined;
  const decoded = parse(reader, file, decode);
  known.set(file, decoded);
  return decoded;
}

function parse<T>(reader: ImageReader, file: string, decode: (content: unknown) => T): T | undefined {
  const bytes = reader.bytes(file);
  if (bytes === undefined) return undefined;
  try {
    return decode(JSON.parse(Buffer.from(bytes).toString()));
  } catch (error) {
    throw new ImageError(file, reason(error), { cause: error });
  }
}
