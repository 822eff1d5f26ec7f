import { words } from '../words.js';
import { concatenate } from './attributes.js';
import { encodeMessage, listMessages, type NetlinkMessage } from './message.js';

/** Messages of netlink(7) in files, as `ip addr save` and its like write them, with a magic number before them or none. */

const WORD = 4;
/** CRIU says those of tracked connections to the kernel as they are, and waits for an answer to this number. */
const SEQUENCE = 24680;

export function encodeMessages(magic: number | undefined, messages: readonly NetlinkMessage[]): Uint8Array {
  const head = magic === undefined ? [] : [words([magic])];
  return concatenate([...head, ...messages.map((message) => encodeMessage(message, SEQUENCE))]);
}

/** Throws where they are none, or where there is something behind the last. */
export function decodeMessages(magic: number | undefined, bytes: Uint8Array): NetlinkMessage[] {
  if (bytes.length === 0) return [];
  if (magic !== undefined && !words([magic]).every((byte, at) => bytes[at] === byte))
    throw new Error('it has another magic number');
  const { messages, end } = listMessages(bytes, magic === undefined ? 0 : WORD);
  // The padding of the last may be missing.
  if (end < bytes.length) throw new Error(`there is no message of netlink at offset ${end}`);
  return messages;
}
