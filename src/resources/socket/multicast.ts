import { ERRNO } from '../../abi/errno.js';
import * as S from '../../abi/socket.js';
import { SyscallError } from '../../kernel/errors.js';
import { scratch } from '../../kernel/memory.js';
import { readText } from '../../kernel/procfs/read.js';
import { attempt } from '../../kernel/syscall.js';
import type { Result, Tape } from '../contract.js';
import type { Group } from './beside-codec.js';
import { readSockaddr, sockaddrBytes } from './inet-address.js';
import { interfaceIndex, mustHaveInterface } from './interfaces.js';

/**
 * Multicast groups of a socket. The kernel lists them by interface only (/proc/PID/net/igmp, igmp6: what any socket is a
 * member of), but answers, group by group, with a socket's own source filter, or EADDRNOTAVAIL where it is no member
 * (RFC 3678; net/ipv4/igmp.c ip_mc_gsfget, net/ipv6/mcast.c ip6_mc_msfget). So every group there is is asked for.
 */
export interface KnownGroup {
  readonly interface: string;
  readonly index: number;
  /** struct sockaddr_in or sockaddr_in6. */
  readonly address: Uint8Array;
}

/** Groups that anybody in the network namespace of `pid` is a member of. */
export function knownGroups(pid: number, family: number): readonly KnownGroup[] {
  const text = readText(`/proc/${pid}/net/${family === S.AF_INET ? 'igmp' : 'igmp6'}`);
  const parsed = family === S.AF_INET ? parseIgmp(text) : parseIgmp6(text);
  return parsed.flatMap(({ device, words }) => {
    const index = interfaceIndex(device);
    const address = sockaddrBytes({ family, port: 0, words, scope: 0 });
    return index === undefined ? [] : [{ interface: device, index, address }];
  });
}

interface Listed {
  readonly device: string;
  readonly words: readonly number[];
}

/** Interfaces begin a line, their groups follow on lines of their own that begin with the address. */
export function parseIgmp(text: string): Listed[] {
  const listed: Listed[] = [];
  let device = '';
  for (const line of text.split('\n').slice(1)) {
    const [, name] = /^\d+\s+(\S+)\s*:/.exec(line) ?? [];
    if (name !== undefined) device = name;
    const [, group] = /^\s+([0-9A-F]{8})\s/.exec(line) ?? [];
    if (group !== undefined) listed.push({ device, words: [Number.parseInt(group, 16)] });
  }
  return listed;
}

/** "2  eth0  ff020000000000000000000000000001  1 …": the address as it lies in memory. */
export function parseIgmp6(text: string): Listed[] {
  return text.split('\n').flatMap((line) => {
    const [, device, group] = /^\d+\s+(\S+)\s+([0-9a-f]{32})\s/.exec(line) ?? [];
    if (device === undefined || group === undefined) return [];
    const bytes = Buffer.from(group, 'hex');
    return [{ device, words: [0, 4, 8, 12].map((at) => bytes.readUInt32LE(at)) }];
  });
}

/** struct group_filter: u32 interface, the group as sockaddr_storage at 8, mode, count, sources of 128 bytes each. */
const STORAGE_SIZE = 128;
const GROUP_AT = 8;
const MODE_AT = GROUP_AT + STORAGE_SIZE;
const COUNT_AT = MODE_AT + 4;
const SOURCES_AT = MODE_AT + 8;
const SOURCES_MAX = 200;

/** A socket of IPv6 may be a member of groups of IPv4 too, at that level. */
const levelOf = (address: Uint8Array): number =>
  readSockaddr(address).family === S.AF_INET ? S.SOL_IP : S.SOL_IPV6;

/** Those of `known` that the socket is a member of. */
export function groupsOf(fd: number, known: readonly KnownGroup[]): Group[] {
  return known.flatMap(({ interface: device, index, address }) => {
    const { view, bytes } = scratch;
    const lengthAt = SOURCES_AT + SOURCES_MAX * STORAGE_SIZE;
    bytes.fill(0, 0, SOURCES_AT);
    view.setUint32(0, index, true);
    bytes.set(address, GROUP_AT);
    view.setUint32(COUNT_AT, SOURCES_MAX, true);
    view.setUint32(lengthAt, lengthAt, true);
    const result = attempt('getsockopt', [
      fd,
      levelOf(address),
      S.MCAST_MSFILTER,
      scratch.address,
      scratch.address + BigInt(lengthAt),
    ]);
    if (result === -ERRNO.EADDRNOTAVAIL) return [];
    if (result < 0) throw new SyscallError('getsockopt', -result, 'MCAST_MSFILTER');
    const count = view.getUint32(COUNT_AT, true);
    if (count > SOURCES_MAX) throw new Error(`a multicast group with ${count} sources`);
    const sources = Array.from({ length: count }, (_, each) => {
      const at = SOURCES_AT + each * STORAGE_SIZE;
      return hex(sockaddrBytes(readSockaddr(bytes.subarray(at, at + STORAGE_SIZE))));
    });
    return [{ interface: device, address: hex(address), mode: view.getUint32(MODE_AT, true), sources }];
  });
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** Entries that join a group; its source filter is set where it has one. */
export function joinGroup(tape: Tape, fd: Result | number, group: Group, id: number): void {
  const index = mustHaveInterface(group.interface, `socket ${id} (a multicast group)`);
  const address = Buffer.from(group.address, 'hex');
  const level = levelOf(address);
  const request = new Uint8Array(SOURCES_AT + group.sources.length * STORAGE_SIZE);
  const view = new DataView(request.buffer);
  view.setUint32(0, index, true);
  request.set(address, GROUP_AT);
  view.setUint32(MODE_AT, group.mode, true);
  view.setUint32(COUNT_AT, group.sources.length, true);
  group.sources.forEach((source, each) => {
    request.set(Buffer.from(source, 'hex'), SOURCES_AT + each * STORAGE_SIZE);
  });
  const space = tape.space(request);
  tape.call('setsockopt', [fd, level, S.MCAST_JOIN_GROUP, space, MODE_AT]);
  if (group.mode === S.MCAST_EXCLUDE && group.sources.length === 0) return;
  tape.call('setsockopt', [fd, level, S.MCAST_MSFILTER, space, request.length]);
}
