import * as S from '../../abi/socket.js';
import type { InetAddress } from './inet-address.js';

/** A packet of UDP or UDP-Lite with its IP header, as a raw socket sends it (RFC 768, 791, 3828, 8200). */
export interface UdpPacket {
  readonly protocol: number;
  readonly from: InetAddress;
  readonly to: InetAddress;
  readonly data: Uint8Array;
  /** Of the header; hop limit in IPv6. */
  readonly ttl: number;
  /** Of the header; traffic class in IPv6. */
  readonly tos: number;
}

const V4_HEADER = 20;
const V6_HEADER = 40;
const UDP_HEADER = 8;

/** Both addresses are of one family, which is the packet's. */
export function encodeUdp(packet: UdpPacket): Uint8Array {
  const { from, to, data, protocol } = packet;
  const isV4 = from.family === S.AF_INET;
  const header = isV4 ? V4_HEADER : V6_HEADER;
  const bytes = new Uint8Array(header + UDP_HEADER + data.length);
  const view = new DataView(bytes.buffer);
  if (isV4) putV4(view, packet, bytes.length);
  else putV6(view, packet, UDP_HEADER + data.length);
  view.setUint16(header, from.port);
  view.setUint16(header + 2, to.port);
  // UDP-Lite says here how much the checksum covers: all of it.
  view.setUint16(header + 4, UDP_HEADER + data.length);
  bytes.set(data, header + UDP_HEADER);
  const sum = checksum(bytes.subarray(header), pseudoHeader(from, to, protocol, UDP_HEADER + data.length));
  view.setUint16(header + 6, sum === 0 ? 0xffff : sum);
  return bytes;
}

/** Identification and checksum are the kernel's to fill in (raw(7) IP_HDRINCL). */
function putV4(view: DataView, { from, to, ttl, tos, protocol }: UdpPacket, length: number): void {
  view.setUint8(0, 0x45);
  view.setUint8(1, tos);
  view.setUint16(2, length);
  view.setUint8(8, ttl);
  view.setUint8(9, protocol);
  view.setUint32(12, from.words[0] ?? 0, true);
  view.setUint32(16, to.words[0] ?? 0, true);
}

function putV6(view: DataView, { from, to, ttl, tos, protocol }: UdpPacket, length: number): void {
  view.setUint32(0, ((6 << 28) | (tos << 20)) >>> 0);
  view.setUint16(4, length);
  view.setUint8(6, protocol);
  view.setUint8(7, ttl);
  for (let index = 0; index < 4; index++) {
    view.setUint32(8 + index * 4, from.words[index] ?? 0, true);
    view.setUint32(24 + index * 4, to.words[index] ?? 0, true);
  }
}

function pseudoHeader(from: InetAddress, to: InetAddress, protocol: number, length: number): Uint8Array {
  const words = [...from.words, ...to.words];
  const bytes = new Uint8Array(words.length * 4 + 8);
  const view = new DataView(bytes.buffer);
  words.forEach((word, index) => {
    view.setUint32(index * 4, word, true);
  });
  view.setUint32(words.length * 4, length);
  view.setUint32(words.length * 4 + 4, protocol);
  return bytes;
}

/** RFC 1071: the complement of the sum of all 16-bit words in ones' complement. */
function checksum(...parts: readonly Uint8Array[]): number {
  let sum = 0;
  for (const part of parts) {
    const view = new DataView(part.buffer, part.byteOffset, part.byteLength);
    for (let at = 0; at + 1 < part.length; at += 2) sum += view.getUint16(at);
    if (part.length % 2 === 1) sum += (part[part.length - 1] ?? 0) << 8;
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}
