import * as S from '../../abi/socket.js';
import { readText } from '../../kernel/procfs/read.js';
import type { InetAddress } from './inet-address.js';

/**
 * /proc/PID/net/{udp,udplite,icmp,raw} and their twins for IPv6 (net/ipv4/udp.c udp4_seq_show and the like): the peers
 * of sockets that getpeername(2) says nothing of, since they are connected to port 0.
 */
const FILES: Readonly<Record<number, string>> = {
  [S.IPPROTO_UDP]: 'udp',
  [S.IPPROTO_UDPLITE]: 'udplite',
  [S.IPPROTO_ICMP]: 'icmp',
  [S.IPPROTO_ICMPV6]: 'icmp',
};

/** Peers by inode, of all sockets of the make of the one given in the network namespace of `pid`. */
export function peersOf(
  pid: number,
  family: number,
  type: number,
  protocol: number,
): ReadonlyMap<number, InetAddress> {
  const name = type === S.SOCK_RAW ? 'raw' : FILES[protocol];
  if (name === undefined) return new Map();
  const text = readText(`/proc/${pid}/net/${name}${family === S.AF_INET6 ? '6' : ''}`);
  return parsePeers(text, family);
}

export function parsePeers(text: string, family: number): ReadonlyMap<number, InetAddress> {
  const peers = new Map<number, InetAddress>();
  for (const line of text.split('\n').slice(1)) {
    const fields = line.trim().split(/\s+/);
    const [address, port] = (fields[2] ?? '').split(':');
    const inode = Number(fields[9]);
    if (address === undefined || port === undefined || Number.isNaN(inode)) continue;
    const words = address.match(/.{8}/g)?.map((word) => Number.parseInt(word, 16)) ?? [];
    const peer = { family, port: Number.parseInt(port, 16), words, scope: 0 };
    if (peer.port !== 0 || words.some((word) => word !== 0)) peers.set(inode, peer);
  }
  return peers;
}
