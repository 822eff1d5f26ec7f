import { readFileSync } from 'node:fs';
import * as S from '../../abi/socket.js';
import { AF_INET6, SOCK_CLOEXEC, SOCK_RAW } from '../../abi/socket.js';
import type { Result, Tape } from '../contract.js';

/**
 * A socket of ICMP without privileges may only be made by certain groups, and root is no exception (icmp(7)
 * ping_group_range; net/ipv4/ping.c ping_init_sock): for this one call the holder is in one of them.
 */
export function openDatagramSocket(tape: Tape, family: number, type: number, protocol: number): Result {
  const make = (): Result => tape.call('socket', [family, type | SOCK_CLOEXEC, protocol]);
  const isPing = type !== SOCK_RAW && protocol === (family === AF_INET6 ? S.IPPROTO_ICMPV6 : S.IPPROTO_ICMP);
  const group = isPing ? groupThatMay() : 0;
  if (group === 0) return make();
  tape.call('setresgid', [-1, group, -1]);
  const fd = make();
  tape.call('setresgid', [-1, 0, -1]);
  return fd;
}

/** 0 where that may, or nobody may. */
function groupThatMay(): number {
  const [low = 0, high = 0] = readFileSync('/proc/sys/net/ipv4/ping_group_range', 'utf8')
    .trim()
    .split(/\s+/)
    .map(Number);
  return low > high ? 0 : low;
}
