import { align } from './attributes.js';

/**
 * Messages of netlink(7) (include/uapi/linux/netlink.h struct nlmsghdr): u32 length with the header, u16 type, u16 flags,
 * u32 sequence number, u32 port, the body, padded to four bytes; packets and files have them one behind the other.
 */
const HEADER_SIZE = 16;

export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  /** The family's own header and its attributes. */
  readonly body: Uint8Array;
}

/** An answer to it has its `sequence` number. */
export function encodeMessage({ type, flags, body }: NetlinkMessage, sequence: number): Uint8Array {
  const length = HEADER_SIZE + body.length;
  const bytes = new Uint8Array(align(length));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, length, true);
  view.setUint16(4, type, true);
  view.setUint16(6, flags, true);
  view.setUint32(8, sequence, true);
  bytes.set(body, HEADER_SIZE);
  return bytes;
}

/** The messages from offset `from` on, as far as there are whole ones, and the offset behind the last of them. */
export function listMessages(bytes: Uint8Array, from = 0): { messages: NetlinkMessage[]; end: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const messages: NetlinkMessage[] = [];
  let at = from;
  while (at + HEADER_SIZE <= bytes.length) {
    const length = view.getUint32(at, true);
    if (length < HEADER_SIZE || at + length > bytes.length) break;
    messages.push({
      type: view.getUint16(at + 4, true),
      flags: view.getUint16(at + 6, true),
      body: bytes.subarray(at + HEADER_SIZE, at + length),
    });
    at += align(length);
  }
  return { messages, end: at };
}
