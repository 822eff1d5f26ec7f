import { create } from '@bufbuild/protobuf';
import * as S from '../../abi/socket.js';
import { type ip_opts_entry, ip_opts_entrySchema } from '../../image/index.js';
import { words } from '../../kernel/words.js';
import type { Result, Tape } from '../contract.js';
import { getBytes, getNumber, setBytes, setNumber } from './option-bytes.js';

/**
 * Options of IP that CRIU's image has fields for (ip(7), ipv6(7)); more-options.ts has all others. Raw sockets have some
 * of their own (raw(7)).
 */
export function dumpIpOptions(fd: number, family: number): ip_opts_entry {
  const options = create(ip_opts_entrySchema, {});
  const isV6 = family === S.AF_INET6;
  const is = (level: number, option: number): boolean => (getNumber(fd, level, option) ?? 0) !== 0;
  if (isV6 ? is(S.SOL_IPV6, S.IPV6_FREEBIND) : is(S.SOL_IP, S.IP_FREEBIND)) options.freebind = true;
  if (isV6 ? is(S.SOL_IPV6, S.IPV6_RECVPKTINFO) : is(S.SOL_IP, S.IP_PKTINFO)) options.pktinfo = true;
  if (isV6) return options;
  const tos = getNumber(fd, S.SOL_IP, S.IP_TOS) ?? 0;
  if (tos !== 0) options.tos = tos;
  const ttl = getNumber(fd, S.SOL_IP, S.IP_TTL) ?? 0;
  if (ttl !== 0) options.ttl = ttl;
  return options;
}

const ICMP_FILTER_WORDS = 1;
const ICMPV6_FILTER_WORDS = 8;

/** What raw sockets have besides. */
export function dumpRawOptions(
  fd: number,
  family: number,
  protocol: number,
): NonNullable<ip_opts_entry['raw']> {
  const made = create(ip_opts_entrySchema, { raw: {} }).raw;
  if (made === undefined) throw new Error('a message without its part');
  const isV6 = family === S.AF_INET6;
  const is = (level: number, option: number): boolean => (getNumber(fd, level, option) ?? 0) !== 0;
  // Said also where it is off: sockets of IPPROTO_RAW are made with it on.
  made.hdrincl = isV6 ? is(S.SOL_IPV6, S.IPV6_HDRINCL) : is(S.SOL_IP, S.IP_HDRINCL);
  if (!isV6 && is(S.SOL_IP, S.IP_NODEFRAG)) made.nodefrag = true;
  const filter = icmpFilter(family, protocol);
  const bytes = filter === undefined ? undefined : getBytes(fd, ...filter);
  if (bytes !== undefined) {
    const view = new DataView(bytes.buffer);
    made.icmpvFilter = Array.from({ length: bytes.length / 4 }, (_, index) =>
      view.getUint32(index * 4, true),
    );
  }
  return made;
}

function icmpFilter(
  family: number,
  protocol: number,
): readonly [level: number, option: number, length: number] | undefined {
  if (family === S.AF_INET6 && protocol === S.IPPROTO_ICMPV6)
    return [S.SOL_ICMPV6, S.ICMPV6_FILTER, ICMPV6_FILTER_WORDS * 4];
  if (family === S.AF_INET && protocol === S.IPPROTO_ICMP)
    return [S.SOL_RAW, S.ICMP_FILTER, ICMP_FILTER_WORDS * 4];
  return undefined;
}

/** To be played before the socket is bound: an address that is not the host's needs freebind. */
export function restoreIpOptions(
  tape: Tape,
  fd: Result | number,
  family: number,
  options: ip_opts_entry,
): void {
  const isV6 = family === S.AF_INET6;
  const set = (v6: readonly [number, number], v4: readonly [number, number], value: number): void => {
    const [level, option] = isV6 ? v6 : v4;
    setNumber(tape, fd, level, option, value);
  };
  if (options.freebind) set([S.SOL_IPV6, S.IPV6_FREEBIND], [S.SOL_IP, S.IP_FREEBIND], 1);
  if (options.pktinfo) set([S.SOL_IPV6, S.IPV6_RECVPKTINFO], [S.SOL_IP, S.IP_PKTINFO], 1);
  if (!isV6 && options.tos !== 0) setNumber(tape, fd, S.SOL_IP, S.IP_TOS, options.tos);
  if (!isV6 && options.ttl !== 0) setNumber(tape, fd, S.SOL_IP, S.IP_TTL, options.ttl);
  const { raw } = options;
  if (raw === undefined) return;
  if (Object.hasOwn(raw, 'hdrincl'))
    set([S.SOL_IPV6, S.IPV6_HDRINCL], [S.SOL_IP, S.IP_HDRINCL], Number(raw.hdrincl));
  if (!isV6 && raw.nodefrag) setNumber(tape, fd, S.SOL_IP, S.IP_NODEFRAG, 1);
  if (raw.icmpvFilter.length === 0) return;
  const [level, option] = isV6 ? [S.SOL_ICMPV6, S.ICMPV6_FILTER] : [S.SOL_RAW, S.ICMP_FILTER];
  setBytes(tape, fd, level, option, words(raw.icmpvFilter));
}
