/** Fields of lines, parsed strictly: the whole field is a number of its base, or it is an error. */
import { ProcfsError } from './error.js';

/** Where a field stands, for the error's message. */
export interface Place {
  readonly path: string;
  readonly line: string;
}

export function fail(place: Place, reason: string): never {
  throw new ProcfsError(place.path, place.line, reason);
}

/** A field that has to be there. */
export function present(text: string | undefined, place: Place, what: string): string {
  return text ?? fail(place, `no ${what}`);
}

const DIGITS = { 8: /^[0-7]+$/, 10: /^-?\d+$/, 16: /^[0-9a-f]+$/i } as const;

/** A number below 2^53 in one of the bases the kernel prints in. */
export function toNumber(text: string | undefined, place: Place, base: 8 | 10 | 16 = 10): number {
  if (text === undefined || !DIGITS[base].test(text)) fail(place, `not a number of base ${base}: ${text}`);
  const value = Number.parseInt(text, base);
  return Number.isSafeInteger(value) ? value : fail(place, `number too large: ${text}`);
}

/** An unsigned (or, in decimal, signed) number of 64 bits. */
export function toBigInt(text: string | undefined, place: Place, base: 8 | 10 | 16 = 10): bigint {
  if (text === undefined || !DIGITS[base].test(text)) fail(place, `not a number of base ${base}: ${text}`);
  if (base === 10) return BigInt(text);
  return BigInt(base === 16 ? `0x${text}` : `0o${text}`);
}

/** Fields between runs of blanks. */
export function words(text: string): string[] {
  const trimmed = text.trim();
  return trimmed === '' ? [] : trimmed.split(/\s+/);
}

/** Lines of a text that ends with a newline. */
export function lines(text: string): string[] {
  const all = text.split('\n');
  if (all.at(-1) === '') all.pop();
  return all;
}

/** `key:value` lines as a map; a line without a colon is an error. */
export function keyed(text: string, path: string): Map<string, string> {
  const map = new Map<string, string>();
  for (const line of lines(text)) {
    const colon = line.indexOf(':');
    if (colon < 0) fail({ path, line }, 'no colon');
    map.set(line.slice(0, colon), line.slice(colon + 1).trim());
  }
  return map;
}

/** Decodes the kernel's \ooo (fs/seq_file.c mangle_path): three octal digits after a backslash. */
export function unescapeOctal(text: string): string {
  if (!text.includes('\\')) return text;
  return text.replace(/\\([0-3][0-7]{2})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}
