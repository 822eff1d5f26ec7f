import { concatenate } from '../../kernel/netlink/attributes.js';
import { checksum, type IpHeader, ipHeader } from './ip-packet.js';

/** A packet of UDP or UDP-Lite with its IP header (RFC 768, 3828). */
export interface UdpPacket extends IpHeader {
  readonly data: Uint8Array;
}

const UDP_HEADER = 8;

export function encodeUdp(packet: UdpPacket): Uint8Array {
  const { from, to, data } = packet;
  const segment = new Uint8Array(UDP_HEADER + data.length);
  const view = new DataView(segment.buffer);
  view.setUint16(0, from.port);
  view.setUint16(2, to.port);
  // UDP-Lite says here how much the checksum covers: all of it.
  view.setUint16(4, segment.length);
  segment.set(data, UDP_HEADER);
  const sum = checksum(packet, segment);
  view.setUint16(6, sum === 0 ? 0xffff : sum);
  return concatenate([ipHeader(packet, segment.length), segment]);
}
