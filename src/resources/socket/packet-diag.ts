import { AF_PACKET } from '../../abi/socket.js';
import { decodeAttributes } from '../../kernel/netlink/attributes.js';
import { NETLINK_SOCK_DIAG, Netlink, NLM_F_DUMP } from '../../kernel/netlink/socket.js';

/** What sock_diag(7) says of a packet socket: include/uapi/linux/packet_diag.h, net/packet/diag.c. */
export interface PacketDiag {
  readonly type: number;
  /** In the network's order, as socket(2) takes it. */
  readonly protocol: number;
  /** Interface it is bound to; 0 for all. */
  readonly index: number;
  readonly version: number;
  readonly reserve: number;
  readonly copyThreshold: number;
  readonly timestamp: number;
  readonly hasAuxiliaryData: boolean;
  readonly hasOriginalDevice: boolean;
  readonly hasVnetHeader: boolean;
  readonly loss: boolean;
  readonly memberships: readonly Membership[];
  readonly receiveRing: Ring | undefined;
  readonly sendRing: Ring | undefined;
}

export interface Membership {
  readonly index: number;
  /** How often it was joined. */
  readonly count: number;
  /** PACKET_MR_* */
  readonly type: number;
  readonly address: Uint8Array;
}

/** struct tpacket_req3. */
export interface Ring {
  readonly blockSize: number;
  readonly blockNr: number;
  readonly frameSize: number;
  readonly frameNr: number;
  readonly retireTmo: number;
  readonly sizeofPriv: number;
  readonly features: number;
}

const SOCK_DIAG_BY_FAMILY = 20;
const REQUEST_SIZE = 20;
const MESSAGE_SIZE = 16;
const PACKET_SHOW = { info: 1, memberships: 2, rings: 4 } as const;
const PACKET_DIAG = { info: 0, memberships: 1, receiveRing: 2, sendRing: 3 } as const;
const PDI = { auxdata: 2, origdev: 4, vnethdr: 8, loss: 0x10 } as const;
const MEMBERSHIP_SIZE = 44;

/** All packet sockets of this network namespace, by inode: one question. */
export function packetSockets(): ReadonlyMap<number, PacketDiag> {
  const request = new DataView(new ArrayBuffer(REQUEST_SIZE));
  request.setUint8(0, AF_PACKET);
  request.setUint32(8, PACKET_SHOW.info | PACKET_SHOW.memberships | PACKET_SHOW.rings, true);
  using netlink = new Netlink(NETLINK_SOCK_DIAG, 'sock_diag');
  const found = new Map<number, PacketDiag>();
  const all = netlink.request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, new Uint8Array(request.buffer));
  for (const { body } of all) found.set(viewOf(body).getUint32(4, true), parse(body));
  return found;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function parse(body: Uint8Array): PacketDiag {
  const attributes = decodeAttributes(body.subarray(MESSAGE_SIZE));
  const info = attributes.get(PACKET_DIAG.info);
  if (info === undefined) throw new Error('sock_diag says nothing of a packet socket');
  const number = (index: number): number => viewOf(info).getUint32(index * 4, true);
  const flags = number(5);
  return {
    type: body[1] ?? 0,
    // pdiag_num is what ntohs(3) made of it.
    protocol: swap(viewOf(body).getUint16(2, true)),
    index: number(0),
    version: number(1),
    reserve: number(2),
    copyThreshold: number(3),
    timestamp: number(4),
    hasAuxiliaryData: (flags & PDI.auxdata) !== 0,
    hasOriginalDevice: (flags & PDI.origdev) !== 0,
    hasVnetHeader: (flags & PDI.vnethdr) !== 0,
    loss: (flags & PDI.loss) !== 0,
    memberships: membershipsOf(attributes.get(PACKET_DIAG.memberships)),
    receiveRing: ringOf(attributes.get(PACKET_DIAG.receiveRing)),
    sendRing: ringOf(attributes.get(PACKET_DIAG.sendRing)),
  };
}

function swap(value: number): number {
  return ((value & 255) << 8) | (value >> 8);
}

function membershipsOf(bytes: Uint8Array | undefined): Membership[] {
  if (bytes === undefined) return [];
  const view = viewOf(bytes);
  return Array.from({ length: Math.floor(bytes.length / MEMBERSHIP_SIZE) }, (_, each) => {
    const at = each * MEMBERSHIP_SIZE;
    const length = view.getUint16(at + 10, true);
    return {
      index: view.getUint32(at, true),
      count: view.getUint32(at + 4, true),
      type: view.getUint16(at + 8, true),
      address: bytes.slice(at + 12, at + 12 + length),
    };
  });
}

function ringOf(bytes: Uint8Array | undefined): Ring | undefined {
  if (bytes === undefined) return undefined;
  const number = (index: number): number => viewOf(bytes).getUint32(index * 4, true);
  const ring = {
    blockSize: number(0),
    blockNr: number(1),
    frameSize: number(2),
    frameNr: number(3),
    retireTmo: number(4),
    sizeofPriv: number(5),
    features: number(6),
  };
  return ring.blockNr === 0 ? undefined : ring;
}
