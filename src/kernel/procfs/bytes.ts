/**
 * Bytes of the kernel (paths, names) as strings, without loss: what is not UTF-8 becomes a lone surrogate
 * U+DC80…U+DCFF for each byte, as Python does (PEP 383). encodeBytes gives the same bytes back. A comm is cut
 * at 15 bytes, in the middle of a character if need be, so this is not only for the odd file system.
 */
import { Buffer, isAscii, isUtf8 } from 'node:buffer';

export function decodeBytes(bytes: Buffer): string {
  if (isAscii(bytes)) return bytes.toString('latin1');
  if (isUtf8(bytes)) return bytes.toString('utf8');
  let text = '';
  for (let at = 0; at < bytes.length; ) {
    const length = characterLength(bytes, at);
    text +=
      length === 0
        ? String.fromCharCode(0xdc00 | bytes.readUInt8(at))
        : bytes.toString('utf8', at, at + length);
    at += Math.max(length, 1);
  }
  return text;
}

export function encodeBytes(text: string): Buffer {
  if (!/\p{Surrogate}/u.test(text)) return Buffer.from(text, 'utf8');
  const parts: Buffer[] = [];
  for (const character of text) {
    const code = character.charCodeAt(0);
    const escaped = character.length === 1 && code >= 0xdc80 && code <= 0xdcff;
    parts.push(escaped ? Buffer.from([code & 0xff]) : Buffer.from(character, 'utf8'));
  }
  return Buffer.concat(parts);
}

/** Bytes of the valid UTF-8 character at a place, or 0. */
function characterLength(bytes: Buffer, at: number): number {
  for (let length = 1; length <= 4 && at + length <= bytes.length; length++) {
    if (isUtf8(bytes.subarray(at, at + length))) return length;
  }
  return 0;
}
