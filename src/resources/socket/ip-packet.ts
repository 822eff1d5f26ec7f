import * as S from '../../abi/socket.js';
import { addressBytes, type InetAddress } from './inet-address.js';

/** Packets of IP as a raw socket sends them with their header (raw(7) IP_HDRINCL; RFC 791, 8200). */

const V4_SIZE = 20;
const V6_SIZE = 40;

export interface IpHeader {
  /** Both addresses are of one family, which is the packet's. */
  readonly from: InetAddress;
  readonly to: InetAddress;
  /** IPPROTO_* */
  readonly protocol: number;
  /** Hop limit in IPv6. */
  readonly ttl: number;
  /** Traffic class in IPv6. */
  readonly tos: number;
}

/** In front of so many bytes. Identification and checksum are the kernel's to fill in. */
export function ipHeader(header: IpHeader, length: number): Uint8Array {
  const { from, to, protocol, ttl, tos } = header;
  const isV4 = from.family === S.AF_INET;
  const bytes = new Uint8Array(isV4 ? V4_SIZE : V6_SIZE);
  const view = new DataView(bytes.buffer);
  if (isV4) {
    view.setUint8(0, 0x45);
    view.setUint8(1, tos);
    view.setUint16(2, V4_SIZE + length);
    view.setUint8(8, ttl);
    view.setUint8(9, protocol);
  } else {
    view.setUint32(0, ((6 << 28) | (tos << 20)) >>> 0);
    view.setUint16(4, length);
    view.setUint8(6, protocol);
    view.setUint8(7, ttl);
  }
  const at = isV4 ? 12 : 8;
  const source = addressBytes(from);
  bytes.set(source, at);
  bytes.set(addressBytes(to), at + source.length);
  return bytes;
}

/** RFC 1071, of a segment and what stands for its header: its protocol and length sum up the same in both versions. */
export function checksum({ from, to, protocol }: IpHeader, segment: Uint8Array): number {
  let sum = protocol + segment.length;
  for (const part of [addressBytes(from), addressBytes(to), segment]) {
    const view = new DataView(part.buffer, part.byteOffset, part.byteLength);
    for (let at = 0; at + 1 < part.length; at += 2) sum += view.getUint16(at);
    if (part.length % 2 === 1) sum += (part[part.length - 1] ?? 0) << 8;
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}
