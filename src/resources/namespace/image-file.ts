import { reason } from '../../image/errors.js';
import { ImageError } from '../../image/index.js';
import { decodeMessages, encodeMessages } from '../../kernel/netlink/images.js';
import type { NetlinkMessage } from '../../kernel/netlink/message.js';
import type { Part } from './part.js';

/**
 * Files PREFIX-ID.img that have no messages of CRIU's but what is of a part in another language; one that is not there says
 * the same as an empty one. `decode` throws an Error that says what is wrong.
 */
export function imageFile<T>(
  prefix: string,
  encode: (content: T) => Uint8Array,
  decode: (bytes: Uint8Array) => T,
): Required<Pick<Part<T>, 'write' | 'load'>> {
  const nameOf = (id: number): string => `${prefix}-${id}.img`;
  return {
    write: (content, writer, id) => writer.writeBytes(nameOf(id), [encode(content)]),
    load(reader, id) {
      const bytes = reader.bytes(nameOf(id)) ?? new Uint8Array();
      try {
        return decode(bytes);
      } catch (error) {
        throw new ImageError(nameOf(id), reason(error));
      }
    },
  };
}

/** Messages of netlink(7), as `decodeMessages` has them. */
export function messagesFile(prefix: string, magic: number | undefined) {
  return imageFile<readonly NetlinkMessage[]>(
    prefix,
    (messages) => encodeMessages(magic, messages),
    (bytes) => decodeMessages(magic, bytes),
  );
}
