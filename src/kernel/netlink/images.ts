import { align, concatenate } from './attributes.js';
import type { NetlinkMessage } from './socket.js';

/** Messages of netlink(7) one behind the other, as `ip addr save` and its like write them, with a magic number before them or none. */

const HEADER_SIZE = 16;
const WORD = 4;
/** CRIU says those of tracked connections to the kernel as they are, and waits for an answer to this number. */
const SEQUENCE = 24680;

export function encodeMessages(magic: number | undefined, messages: readonly NetlinkMessage[]): Uint8Array {
  const head = new Uint8Array(magic === undefined ? 0 : WORD);
  if (magic !== undefined) new DataView(head.buffer).setUint32(0, magic, true);
  return concatenate([head, ...messages.map(encodeMessage)]);
}

function encodeMessage({ type, flags, body }: NetlinkMessage): Uint8Array {
  const length = HEADER_SIZE + body.length;
  const bytes = new Uint8Array(align(length));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, length, true);
  view.setUint16(4, type, true);
  view.setUint16(6, flags, true);
  view.setUint32(8, SEQUENCE, true);
  bytes.set(body, HEADER_SIZE);
  return bytes;
}

/** Throws where they are none, or where there is something behind the last. */
export function decodeMessages(magic: number | undefined, bytes: Uint8Array): NetlinkMessage[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found: NetlinkMessage[] = [];
  let at = 0;
  if (magic !== undefined && bytes.length > 0) {
    if (bytes.length < WORD || view.getUint32(0, true) !== magic)
      throw new Error('it has another magic number');
    at = WORD;
  }
  while (at < bytes.length) {
    const length = at + HEADER_SIZE <= bytes.length ? view.getUint32(at, true) : 0;
    if (length < HEADER_SIZE || at + length > bytes.length)
      throw new Error(`there is no message of netlink at offset ${at}`);
    const [type, flags] = [view.getUint16(at + 4, true), view.getUint16(at + 6, true)];
    found.push({ type, flags, body: bytes.subarray(at + HEADER_SIZE, at + length) });
    at += align(length);
  }
  return found;
}
