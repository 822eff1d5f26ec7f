import { ERRNO } from '../../abi/errno.js';
import * as S from '../../abi/socket.js';
import { scratch } from '../../kernel/memory.js';
import { attempt } from '../../kernel/syscall.js';
import type { Descriptor, DumpContext } from '../contract.js';
import { refusalOf } from '../description/described.js';
import type { SocketIdentity } from '../description/identify.js';
import { besideOf } from './beside.js';
import type { Datagram } from './beside-codec.js';
import { peekDatagrams } from './datagram-queue.js';
import { isOurs } from './datagram-target.js';
import * as A from './inet-address.js';
import { interfaceName } from './interfaces.js';
import { getNumber } from './option-bytes.js';
import { retryUnread, unreadOf } from './unread.js';

/** What is waiting to be read, or to be sent. */
export function dumpQueue(
  descriptor: Descriptor,
  id: number,
  taken: number,
  socket: SocketIdentity,
  context: DumpContext,
): void {
  const held = isUdp(socket) ? heldBack(taken) : 0;
  if (held > 0)
    context.retry(
      refusalOf(
        descriptor,
        `it holds back ${held} bytes that are to become one datagram (UDP_CORK, MSG_MORE), and nobody can read them`,
        'let the program send it',
      ),
    );
  const unread = unreadOf(taken);
  const drop = context.options.dropPackets === true;
  // Whoever looks at a queue gets the error first, and then it is gone.
  if (unread.error && (unread.data || keepsErrors(taken, socket))) {
    if (!drop) retryUnread(descriptor, 'an unread error or time stamp', context);
    return;
  }
  if (!unread.data) return;
  if (!isUdp(socket)) {
    if (!drop && !isEmpty(taken)) retryUnread(descriptor, 'unread packets', context);
    return;
  }
  const datagrams = peekDatagrams(taken, socket, descriptor, context);
  if (datagrams.length === 0) return;
  const local = A.localAddress(taken);
  if (A.isAny(local.words) || isOurs(local)) {
    const beside = besideOf(context, id);
    beside.datagrams = datagrams;
    beside.interfaces = interfacesOf(datagrams);
  } else if (!drop)
    retryUnread(descriptor, `unread datagrams that came to ${A.printAddress(local)}`, context);
}

/** poll(2) says that there is something to read also of what was shut down. */
function isEmpty(taken: number): boolean {
  const flags = S.MSG_PEEK | S.MSG_DONTWAIT;
  return attempt('recvfrom', [taken, scratch.address, 1, flags, 0, 0]) === -ERRNO.EAGAIN;
}

/** Link-local senders are those of an interface. */
function interfacesOf(datagrams: readonly Datagram[]): Record<string, string> {
  const names: Record<string, string> = {};
  for (const { from } of datagrams) {
    const { scope } = A.readSockaddr(Buffer.from(from, 'hex'));
    const name = scope === 0 ? undefined : interfaceName(scope);
    if (name !== undefined) names[scope] = name;
  }
  return names;
}

function isUdp({ type, protocol }: SocketIdentity): boolean {
  return type === S.SOCK_DGRAM && (protocol === S.IPPROTO_UDP || protocol === S.IPPROTO_UDPLITE);
}

/** SIOCOUTQ: also what is on its way through a queue of an interface, which passes. */
function heldBack(taken: number): number {
  const SIOCOUTQ = 0x5411;
  return attempt('ioctl', [taken, SIOCOUTQ, scratch.address]) < 0 ? 0 : scratch.view.getInt32(0, true);
}

/**
 * With these options errors and time stamps are in a queue of their own, which cannot be looked at without taking them
 * out. Without, there is at most one error, of an ICMP packet that might have been lost as well.
 */
function keepsErrors(taken: number, { family }: SocketIdentity): boolean {
  const options: readonly (readonly [level: number, option: number])[] = [
    [S.SOL_IP, S.IP_RECVERR],
    [S.SOL_SOCKET, S.SO_TIMESTAMPING],
    [S.SOL_SOCKET, S.SO_ZEROCOPY],
    [S.SOL_IPV6, S.IPV6_RECVERR],
  ];
  return options.some(
    ([level, option]) =>
      (level !== S.SOL_IPV6 || family === S.AF_INET6) && (getNumber(taken, level, option) ?? 0) !== 0,
  );
}
