import * as S from '../../abi/socket.js';
import { concatenate } from '../../kernel/netlink/attributes.js';
import type { Result, Tape } from '../contract.js';
import { type InetAddress, sockaddrBytes } from './inet-address.js';
import { checksum, type IpHeader, ipHeader } from './ip-packet.js';
import { type Connection, RESTORE_MARK, wireAddress } from './lock-table.js';
import { setNumber } from './option-bytes.js';

/**
 * Segments that the peer of a rebuilt connection has sent once already (RFC 9293): with its end, or an acknowledgement,
 * a socket gets into the state of the image. They come from a raw socket (raw(7)) of this host, to an address of this
 * host, so they never leave it, and pass the lock by their mark.
 */
export const FLAG = { fin: 1, reset: 4, ack: 16 } as const;

export interface Segment {
  readonly flags: number;
  readonly sequence: number;
  readonly acknowledged: number;
  readonly window: number;
}

/** Entries that make the segment arrive at our end of the connection. */
export function deliver(tape: Tape, connection: Connection, segment: Segment): void {
  const from = wireAddress(connection.remote);
  const to = wireAddress(connection.local);
  const packet = packetOf(from, to, segment);
  // The port of a raw address would be a protocol.
  const address = sockaddrBytes({ ...to, port: 0 });
  const raw = tape.call('socket', [to.family, S.SOCK_RAW | S.SOCK_CLOEXEC, S.IPPROTO_RAW]);
  setNumber(tape, raw, S.SOL_SOCKET, S.SO_MARK, RESTORE_MARK);
  tape.call(
    'sendto',
    [raw, tape.space(packet), packet.length, 0, tape.space(address), address.length],
    packet.length,
  );
  tape.call('close', [raw]);
}

/** Wait until the socket shows any of `events` (poll(2)); the loopback device delivers at once, most of the time. */
export function awaitEvents(tape: Tape, fd: Result, events: number): void {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setInt16(4, events, true);
  const pollfd = tape.space(bytes);
  tape.copy(fd, pollfd, 0);
  tape.call('poll', [pollfd, 1, WAIT_MS], 1);
}

const WAIT_MS = 5000;
const TCP_HEADER = 20;
const HOP_LIMIT = 64;

function packetOf(from: InetAddress, to: InetAddress, segment: Segment): Uint8Array {
  const header = { from, to, protocol: S.IPPROTO_TCP, ttl: HOP_LIMIT, tos: 0 };
  const tcp = tcpHeader(header, segment);
  return concatenate([ipHeader(header, tcp.length), tcp]);
}

function tcpHeader(header: IpHeader, segment: Segment): Uint8Array {
  const bytes = new Uint8Array(TCP_HEADER);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, header.from.port, false);
  view.setUint16(2, header.to.port, false);
  view.setUint32(4, segment.sequence >>> 0, false);
  view.setUint32(8, segment.acknowledged >>> 0, false);
  view.setUint8(12, (TCP_HEADER / 4) << 4);
  view.setUint8(13, segment.flags);
  view.setUint16(14, Math.min(segment.window, 0xffff), false);
  view.setUint16(16, checksum(header, bytes), false);
  return bytes;
}
