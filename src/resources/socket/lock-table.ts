import * as N from '../../abi/netfilter.js';
import { AF_INET, IPPROTO_TCP } from '../../abi/socket.js';
import { concatenate } from '../../kernel/netlink/attributes.js';
import type { NetlinkMessage } from '../../kernel/netlink/message.js';
import * as nft from '../../kernel/netlink/nftables.js';
import { words } from '../../kernel/words.js';
import { addressBytes, type InetAddress } from './inet-address.js';

/**
 * A table of packet filters that makes connections silent: what is sent to them, or by them, is dropped. Nothing else
 * is, not even what their peers on this host send and have sent; but a namespace can be silent as a whole. Packets with
 * CRIU's mark pass, for those who rebuild sockets.
 */
export const RESTORE_MARK = 0xc114;

/** Both ends of a connection, as its socket has them. */
export interface Connection {
  readonly local: InetAddress;
  readonly remote: InetAddress;
}

/** What differs between the two versions of IP: offsets in their headers, and names. */
const VERSIONS = [
  {
    protocol: N.NFPROTO_IPV4,
    set: 'connections4',
    id: 1,
    source: 12,
    destination: 16,
    length: 4,
    type: nft.KEY_TYPE.ipv4,
  },
  {
    protocol: N.NFPROTO_IPV6,
    set: 'connections6',
    id: 2,
    source: 8,
    destination: 24,
    length: 16,
    type: nft.KEY_TYPE.ipv6,
  },
] as const;

type Version = (typeof VERSIONS)[number];

/** What is to be silent: connections, or all that goes in and out of a network namespace. */
export type Silent = readonly Connection[] | 'everything';

/** The transaction that makes it; see newTable for `owned` and `note`. */
export function lockMessages(
  table: string,
  silent: Silent,
  owned: boolean,
  note: Uint8Array,
): NetlinkMessage[] {
  return nft.transaction([
    nft.newTable(table, owned, note),
    nft.newChain(table, 'input', N.NF_INET_LOCAL_IN, N.NF_PRIORITY_RAW),
    nft.newChain(table, 'output', N.NF_INET_LOCAL_OUT, N.NF_PRIORITY_RAW),
    ...(silent === 'everything' ? dropAll(table) : dropConnections(table, silent)),
  ]);
}

function dropAll(table: string): NetlinkMessage[] {
  const drop = [...unmarked(), nft.verdict(N.NF_DROP)];
  return [nft.newRule(table, 'input', drop), nft.newRule(table, 'output', drop)];
}

function dropConnections(table: string, connections: readonly Connection[]): NetlinkMessage[] {
  const keys = connections.map(keyOf);
  return VERSIONS.flatMap((version) => [
    nft.newSet(table, version.set, keyShape(version), version.id),
    ...nft.newElements(
      table,
      version.set,
      unique(keys.filter(({ length }) => length === keyLength(version))),
    ),
    nft.newRule(table, 'input', dropRule(version, 'input')),
    nft.newRule(table, 'output', dropRule(version, 'output')),
  ]);
}

/** Goes on only with packets that are not of those who rebuild connections. */
function unmarked(): nft.Expression[] {
  return [nft.meta(N.NFT_META_MARK), nft.compare(words([RESTORE_MARK]), N.NFT_CMP_NEQ)];
}

const SYN = 2;
const SYN_OR_ACK = 0x12;
const FLAGS_AT = 13;

/** A table that drops the first segments of new connections to ports; those that have begun go on. */
export function holdMessages(table: string, ports: readonly number[]): NetlinkMessage[] {
  const key = { length: 2, types: [nft.KEY_TYPE.port] };
  const keys = ports.map((port) => Uint8Array.of(port >> 8, port & 0xff));
  return nft.transaction([
    nft.newTable(table, true, nft.PASSING_NOTE),
    nft.newChain(table, 'input', N.NF_INET_LOCAL_IN, N.NF_PRIORITY_RAW),
    nft.newSet(table, 'ports', key, 1),
    ...nft.newElements(table, 'ports', unique(keys)),
    nft.newRule(table, 'input', [
      nft.meta(N.NFT_META_L4PROTO),
      nft.compare(Uint8Array.of(IPPROTO_TCP)),
      nft.payload(N.NFT_PAYLOAD_TRANSPORT_HEADER, FLAGS_AT, 1),
      nft.mask(Uint8Array.of(SYN_OR_ACK)),
      nft.compare(Uint8Array.of(SYN)),
      nft.payload(N.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2),
      nft.lookup('ports'),
      nft.verdict(N.NF_DROP),
    ]),
  ]);
}

export function unlockMessages(table: string): NetlinkMessage[] {
  return nft.transaction([nft.deleteTable(table)]);
}

function keyLength({ length }: Version): number {
  return 2 * (length + PORT_ROOM);
}

function keyShape(version: Version): { length: number; types: number[] } {
  const { type } = version;
  return { length: keyLength(version), types: [type, nft.KEY_TYPE.port, type, nft.KEY_TYPE.port] };
}

/** A port takes a whole register. */
const PORT_ROOM = 4;

function keyOf({ local, remote }: Connection): Uint8Array {
  return concatenate([...half(local), ...half(remote)]);
}

function half(address: InetAddress): Uint8Array[] {
  const wire = wireAddress(address);
  const room = new Uint8Array(PORT_ROOM);
  new DataView(room.buffer).setUint16(0, wire.port, false);
  return [addressBytes(wire), room];
}

/** An address as packets have it, which is one of IPv4 where the socket's is v4-mapped (::ffff:0:0/96). */
export function wireAddress(address: InetAddress): InetAddress {
  const [first, second, third] = address.words;
  const isMapped = address.words.length === 4 && first === 0 && second === 0 && third === MAPPED_WORD;
  return isMapped ? { ...address, family: AF_INET, words: address.words.slice(3), scope: 0 } : address;
}

const MAPPED_WORD = 0xffff_0000;

function unique(keys: readonly Uint8Array[]): Uint8Array[] {
  return [...new Map(keys.map((key) => [Buffer.from(key).toString('latin1'), key])).values()];
}

/** Our end is the destination of what comes in and the source of what goes out. */
function dropRule(version: Version, chain: 'input' | 'output'): nft.Expression[] {
  const { protocol, source, destination, length } = version;
  const ends = chain === 'input' ? [destination, source] : [source, destination];
  const ports = chain === 'input' ? [2, 0] : [0, 2];
  let register = N.NFT_REG32_00;
  const load = (base: number, offset: number, size: number): nft.Expression => {
    const expression = nft.payload(base, offset, size, register);
    register += Math.ceil(size / 4);
    return expression;
  };
  return [
    nft.meta(N.NFT_META_NFPROTO),
    nft.compare(Uint8Array.of(protocol)),
    nft.meta(N.NFT_META_L4PROTO),
    nft.compare(Uint8Array.of(IPPROTO_TCP)),
    ...unmarked(),
    ...[0, 1].flatMap((end) => [
      load(N.NFT_PAYLOAD_NETWORK_HEADER, ends[end] ?? 0, length),
      load(N.NFT_PAYLOAD_TRANSPORT_HEADER, ports[end] ?? 0, 2),
    ]),
    nft.lookup(version.set),
    nft.verdict(N.NF_DROP),
  ];
}
