import { readFileSync } from 'node:fs';
import * as S from '../../abi/socket.js';
import type { inet_sk_entry } from '../../image/index.js';
import { OwnedFd } from '../../kernel/fd.js';
import { scratch } from '../../kernel/memory.js';
import { attempt, syscall } from '../../kernel/syscall.js';
import type { BesideSocket, Datagram } from './beside-codec.js';
import * as A from './inet-address.js';
import { mustHaveInterface } from './interfaces.js';

/** Where to send it so that this socket gets it: its own address, where it was sent to, or any that the host has. */
export function targetOf(
  { to }: Datagram,
  from: A.InetAddress,
  socket: inet_sk_entry,
  { interfaces = {} }: BesideSocket,
  family: number,
): A.InetAddress | undefined {
  const local = localOf(socket);
  const bound = unmapped(local);
  const candidates: A.InetAddress[] = [];
  if (!A.isAny(local.words)) candidates.push(bound);
  else {
    if (to !== undefined) candidates.push(unmapped(A.readSockaddr(Buffer.from(to, 'hex'))));
    const name = from.scope === 0 ? socket.opts?.soBoundDev : interfaces[from.scope];
    if (name !== undefined && name !== '') candidates.push(...addressesOf(name, family));
    candidates.push({ family, port: 0, words: family === S.AF_INET ? [LOOPBACK] : [0, 0, 0, ONE], scope: 0 });
  }
  const device = from.scope === 0 ? undefined : interfaces[from.scope];
  const scope = device === undefined ? 0 : mustHaveInterface(device, `socket ${socket.id}`);
  return candidates
    .filter((each) => each.family === family)
    .map((each) => ({ ...each, port: socket.srcPort, scope: A.needsInterface(each) ? scope : 0 }))
    .find(isOurs);
}

/** 127.0.0.1, and the last word of ::1, as they lie in memory. */
const LOOPBACK = 0x0100_007f;
const ONE = 0x0100_0000;

export function localOf({ family, srcPort, srcAddr, id }: inet_sk_entry): A.InetAddress {
  return A.imageAddress(family, srcPort, srcAddr, id);
}

/** ::ffff:a.b.c.d is a.b.c.d. */
export function unmapped(address: A.InetAddress): A.InetAddress {
  const [first, second, third, fourth = 0] = address.words;
  const MAPPED = 0xffff_0000;
  if (address.family !== S.AF_INET6 || first !== 0 || second !== 0 || third !== MAPPED) return address;
  return { family: S.AF_INET, port: address.port, words: [fourth], scope: 0 };
}

export function familyOf(from: string): number {
  return unmapped(A.readSockaddr(Buffer.from(from, 'hex'))).family;
}

/** An address of one of our interfaces: a socket can be bound to it, and it is neither multicast nor broadcast. */
export function isOurs({ family, words, scope }: A.InetAddress): boolean {
  const first = (words[0] ?? 0) & 255;
  if (family === S.AF_INET ? first >= 224 : first === 0xff) return false;
  using probe = new OwnedFd(syscall('socket', [family, S.SOCK_DGRAM | S.SOCK_CLOEXEC, 0]));
  const bytes = A.sockaddrBytes({ family, words, scope, port: 0 });
  scratch.bytes.set(bytes);
  // Only what is an address of the host is also one that a packet can be sent from to itself (ip_nonlocal_bind).
  if (attempt('bind', [probe.fd, scratch.address, bytes.length]) < 0) return false;
  if (family === S.AF_INET && first !== 127 && nonlocalBind()) return false;
  return true;
}

function nonlocalBind(): boolean {
  return readFileSync('/proc/sys/net/ipv4/ip_nonlocal_bind', 'utf8').trim() !== '0';
}

const SIOCGIFADDR = 0x8915;

/** Addresses of an interface: the first of IPv4, those of IPv6 (/proc/thread-self/net/if_inet6). */
function addressesOf(name: string, family: number): A.InetAddress[] {
  if (family === S.AF_INET) {
    using probe = new OwnedFd(syscall('socket', [S.AF_INET, S.SOCK_DGRAM | S.SOCK_CLOEXEC, 0]));
    scratch.bytes.fill(0, 0, 40);
    scratch.bytes.set(Buffer.from(name).subarray(0, 15));
    if (attempt('ioctl', [probe.fd, SIOCGIFADDR, scratch.address]) < 0) return [];
    return [A.readSockaddr(scratch.bytes.subarray(16, 32))];
  }
  return readFileSync('/proc/thread-self/net/if_inet6', 'utf8')
    .split('\n')
    .flatMap((line) => {
      const [address = '', , , , , device] = line.trim().split(/\s+/);
      if (device !== name) return [];
      const bytes = Buffer.from(address, 'hex');
      return [{ family, port: 0, words: [0, 4, 8, 12].map((at) => bytes.readUInt32LE(at)), scope: 0 }];
    })
    .sort((a, b) => Number(A.needsInterface(b)) - Number(A.needsInterface(a)));
}
