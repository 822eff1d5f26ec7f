import { ERRNO } from '../../abi/errno.js';
import * as S from '../../abi/socket.js';
import { ImageError } from '../../image/index.js';
import { SyscallError } from '../../kernel/errors.js';
import { scratch } from '../../kernel/memory.js';
import { attempt } from '../../kernel/syscall.js';
import { words } from '../../kernel/words.js';
import type { Result, Tape } from '../contract.js';
import { setNumber } from './option-bytes.js';

/**
 * Addresses of sockets of AF_INET and AF_INET6 (ip(7), ipv6(7)), as images have them: the port in the host's order, and
 * the address as words of four bytes that lie in memory in the network's order.
 */
export interface InetAddress {
  /** AF_INET, AF_INET6. */
  readonly family: number;
  readonly port: number;
  /** One word, or four. */
  readonly words: readonly number[];
  /** sin6_scope_id: the interface of a link-local address; 0 without. */
  readonly scope: number;
}

const SOCKADDR_IN_SIZE = 16;
const SOCKADDR_IN6_SIZE = 28;
const SOCKADDR_MAX = 128;

/** getsockname(2). A socket without an address has the one of only zeros. */
export function localAddress(fd: number): InetAddress {
  const address = ask('getsockname', fd);
  if (address === undefined) throw new Error(`descriptor ${fd} has no name`);
  return address;
}

/** getpeername(2); undefined for a socket that is not connected. */
export function peerAddress(fd: number): InetAddress | undefined {
  return ask('getpeername', fd);
}

function ask(call: 'getsockname' | 'getpeername', fd: number): InetAddress | undefined {
  const at = scratch.address + BigInt(SOCKADDR_MAX);
  scratch.view.setUint32(SOCKADDR_MAX, SOCKADDR_MAX, true);
  const result = attempt(call, [fd, scratch.address, at]);
  if (result === -ERRNO.ENOTCONN) return undefined;
  if (result < 0) throw new SyscallError(call, -result, 'a socket');
  return readSockaddr(scratch.bytes.subarray(0, SOCKADDR_MAX));
}

/** A struct sockaddr_in or sockaddr_in6. Throws TypeError for another family. */
export function readSockaddr(bytes: Uint8Array): InetAddress {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const family = view.getUint16(0, true);
  const port = view.getUint16(2, false);
  if (family === S.AF_INET) return { family, port, words: [view.getUint32(4, true)], scope: 0 };
  if (family !== S.AF_INET6) throw new TypeError(`an address of family ${family}, not of IP`);
  const four = [8, 12, 16, 20].map((at) => view.getUint32(at, true));
  return { family, port, words: four, scope: view.getUint32(24, true) };
}

/** The bytes of a struct sockaddr_in or sockaddr_in6, for bind(2), connect(2) and sendto(2). */
export function sockaddrBytes(address: InetAddress): Uint8Array {
  const { family, port, scope } = address;
  const bytes = new Uint8Array(family === S.AF_INET ? SOCKADDR_IN_SIZE : SOCKADDR_IN6_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, family, true);
  view.setUint16(2, port, false);
  bytes.set(addressBytes(address), family === S.AF_INET ? 4 : 8);
  if (family === S.AF_INET6) view.setUint32(24, scope, true);
  return bytes;
}

/** The address alone, as packets have it. */
export function addressBytes(address: InetAddress): Uint8Array {
  return words(address.words);
}

/** Only zeros: INADDR_ANY, IN6ADDR_ANY. */
export function isAny(words: readonly number[]): boolean {
  return words.every((word) => word === 0);
}

/** The address with zeros only, as many words as the family has. */
export function noWords(family: number): number[] {
  return family === S.AF_INET ? [0] : [0, 0, 0, 0];
}

/** "10.0.0.1:80", "[::1]:80", for messages. */
export function printAddress({ family, words, port }: InetAddress): string {
  const octets = words.flatMap((word) => [word & 255, (word >> 8) & 255, (word >> 16) & 255, word >>> 24]);
  if (family === S.AF_INET) return `${octets.join('.')}:${port}`;
  const groups = Array.from({ length: 8 }, (_, index) =>
    (((octets[index * 2] ?? 0) << 8) | (octets[index * 2 + 1] ?? 0)).toString(16),
  );
  return `[${groups.join(':').replace(/(?:^|:)(?:0:)+0(?::|$)/, '::')}]:${port}`;
}

/**
 * Does an address mean anything only together with an interface (net/ipv6/addrconf_core.c __ipv6_addr_type)? Those of
 * fe80::/10, and multicast ones of interface and link scope.
 */
export function needsInterface({ family, words }: Pick<InetAddress, 'family' | 'words'>): boolean {
  if (family !== S.AF_INET6) return false;
  const first = (words[0] ?? 0) & 255;
  const second = ((words[0] ?? 0) >> 8) & 255;
  if (first === 0xff) return (second & 15) === 1 || (second & 15) === 2;
  return first === 0xfe && (second & 0xc0) === 0x80;
}

/** An address out of an image: `words` may be more than the family has (CRIU 0.1), but not fewer. Throws ImageError. */
export function imageAddress(
  family: number,
  port: number,
  words: readonly number[],
  id: number,
): InetAddress {
  const count = family === S.AF_INET ? 1 : 4;
  if (family !== S.AF_INET && family !== S.AF_INET6)
    throw new ImageError('files.img', `file ${id}: ${family} is no family of IP`);
  if (words.length < count || port > 0xffff)
    throw new ImageError('files.img', `file ${id}: an address of ${words.length} words, port ${port}`);
  return { family, port, words: words.slice(0, count), scope: 0 };
}

/**
 * Entries that bind a socket. An address of IPv6 may still be tentative (RFC 4862) on a host that just got it, so it is
 * bound as one that need not exist; `freebind` is what the socket is to have afterwards. Interfaces of link-local
 * addresses are said by SO_BINDTODEVICE before (net/ipv6/af_inet6.c __inet6_bind).
 */
export function bindInet(
  tape: Tape,
  fd: Result | number,
  address: InetAddress,
  freebind: boolean,
  isRaw = false,
): void {
  const free = address.family === S.AF_INET6 && !freebind;
  const [level, option] = isRaw ? [S.SOL_IPV6, S.IPV6_FREEBIND] : [S.SOL_IP, S.IP_FREEBIND];
  const set = (value: number): void => setNumber(tape, fd, level, option, value);
  if (free) set(1);
  const bytes = sockaddrBytes(address);
  tape.call('bind', [fd, tape.space(bytes), bytes.length]);
  if (free) set(0);
}

/** Entries that connect a socket; those of TCP in repair mode make no handshake of it. */
export function connectInet(tape: Tape, fd: Result | number, address: InetAddress): void {
  const bytes = sockaddrBytes(address);
  tape.call('connect', [fd, tape.space(bytes), bytes.length]);
}
