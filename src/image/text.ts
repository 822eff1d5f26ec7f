import { isUtf8 } from 'node:buffer';
import { configureTextEncoding, getTextEncoding } from '@bufbuild/protobuf/wire';

/*
 * The kernel's names (paths, comm) are bytes, not UTF-8: a comm is cut at 15 bytes wherever that falls. The
 * schemas call them strings, and a decoder that replaces what is not UTF-8 would lose the name. So a byte that is
 * no part of valid UTF-8 becomes a lone surrogate, U+DC80 to U+DCFF, and comes back as that byte when written
 * (PEP 383). Whatever reads names from /proc for an image should use the same pair of functions.
 */

const ESCAPE_BASE = 0xdc00;
/** Matches lone surrogates only: with the u flag a proper pair is one character. */
const LONE_ESCAPE = /[\udc80-\udcff]/u;

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** A name from the kernel as a string, without loss. */
export function decodeName(bytes: Uint8Array): string {
  return isUtf8(bytes) ? decoder.decode(bytes) : decodeEscaped(bytes);
}

/** The bytes of a name that `decodeName` gave. */
export function encodeName(name: string): Uint8Array<ArrayBuffer> {
  return LONE_ESCAPE.test(name) ? encodeEscaped(name) : encoder.encode(name);
}

function sequenceLength(lead: number): number {
  if (lead < 0x80) return 1;
  if (lead < 0xe0) return 2;
  return lead < 0xf0 ? 3 : 4;
}

function decodeEscaped(bytes: Uint8Array): string {
  const parts: string[] = [];
  let valid_from = 0;
  let at = 0;
  const flush = () => {
    if (at > valid_from) parts.push(decoder.decode(bytes.subarray(valid_from, at)));
  };
  while (at < bytes.length) {
    const lead = bytes[at] ?? 0;
    const next = at + sequenceLength(lead);
    if (lead < 0x80 || (next <= bytes.length && isUtf8(bytes.subarray(at, next)))) {
      at = next;
      continue;
    }
    flush();
    parts.push(String.fromCharCode(ESCAPE_BASE + lead));
    at += 1;
    valid_from = at;
  }
  flush();
  return parts.join('');
}

function encodeEscaped(name: string): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  let text = '';
  for (const character of name) {
    if (!LONE_ESCAPE.test(character)) {
      text += character;
      continue;
    }
    parts.push(encoder.encode(text), Uint8Array.of(character.charCodeAt(0) - ESCAPE_BASE));
    text = '';
  }
  parts.push(encoder.encode(text));
  return new Uint8Array(Buffer.concat(parts));
}

/**
 * Runs protobuf's codec with names as above. The library knows only a setting for all of a process, which may be
 * shared with a user's own messages: so it is changed for the time of one synchronous call.
 */
export function withNames<T>(run: () => T): T {
  const before = getTextEncoding();
  configureTextEncoding({
    encodeUtf8: encodeName,
    decodeUtf8: (bytes) => decodeName(bytes),
    checkUtf8: () => true,
  });
  try {
    return run();
  } finally {
    configureTextEncoding(before);
  }
}
