import { ERRNO } from '../../abi/errno.js';
import { AF_UNSPEC } from '../../abi/socket.js';
import { SyscallError } from '../../kernel/errors.js';
import { listAttributes } from '../../kernel/netlink/attributes.js';
import type { NetlinkMessage } from '../../kernel/netlink/message.js';
import { Netlink, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL } from '../../kernel/netlink/socket.js';

/** Questions and requests by netlink(7) about all that is in a network namespace. */

export const NETLINK_ROUTE = 0;
export const NETLINK_XFRM = 6;

/** All there is; nothing where the kernel does not know the protocol, or the question. */
export function ask(protocol: number, type: number, body: Uint8Array): NetlinkMessage[] {
  try {
    using netlink = new Netlink(protocol, NAMES[protocol] ?? 'netlink');
    return netlink
      .request(type, NLM_F_DUMP, body)
      .map((message) => ({ ...message, body: message.body.slice() }));
  } catch (error) {
    if (error instanceof SyscallError && UNKNOWN.has(error.errno)) return [];
    throw error;
  }
}

const UNKNOWN = new Set<number>([ERRNO.EPROTONOSUPPORT, ERRNO.EAFNOSUPPORT, ERRNO.EOPNOTSUPP, ERRNO.EINVAL]);

const NAMES: Readonly<Record<number, string>> = { 0: 'rtnetlink', 6: 'xfrm', 12: 'nfnetlink' };

/** What a body begins with, of whichever protocol: its first byte is the address family. */
export function familyHeader(size: number, family: number = AF_UNSPEC): Uint8Array {
  const bytes = new Uint8Array(size);
  bytes[0] = family;
  return bytes;
}

/** One request. @throws SyscallError */
export function tell(protocol: number, type: number, flags: number, body: Uint8Array): void {
  using netlink = new Netlink(protocol, NAMES[protocol] ?? 'netlink');
  netlink.batch([{ type, flags: flags | NLM_F_ACK, body }]);
}

/** As `tell`, of what is to be made: that it is there already is no error. */
export function tellUnlessThere(protocol: number, type: number, body: Uint8Array): void {
  try {
    tell(protocol, type, NLM_F_CREATE | NLM_F_EXCL, body);
  } catch (error) {
    if (!(error instanceof SyscallError) || error.errno !== ERRNO.EEXIST) throw error;
  }
}

/** A name, and the header and attributes behind it, but for those that change by themselves. */
export function describe(
  name: string,
  { body }: NetlinkMessage,
  headerSize: number,
  without: ReadonlySet<number>,
): string {
  const attributes = listAttributes(body.subarray(headerSize))
    .filter(([type]) => !without.has(type))
    .map(([type, value]) => `${type}=${Buffer.from(value).toString('hex')}`);
  return `${name}: ${[Buffer.from(body.subarray(0, headerSize)).toString('hex'), ...attributes].join(' ')}`;
}
