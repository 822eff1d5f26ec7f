import { create } from '@bufbuild/protobuf';
import { ERRNO } from '../../abi/errno.js';
import * as S from '../../abi/socket.js';
import { type sk_opts_entry, sk_opts_entrySchema } from '../../image/index.js';
import { cString, fromCString } from '../../kernel/c-string.js';
import { SyscallError } from '../../kernel/errors.js';
import { OwnedFd } from '../../kernel/fd.js';
import { scratch } from '../../kernel/memory.js';
import { perNetwork } from '../../kernel/namespace.js';
import { attempt, syscall } from '../../kernel/syscall.js';
import { words } from '../../kernel/words.js';
import type { Result, Tape } from '../contract.js';
import { OptionBatch } from './option-batch.js';
import { getBytes, setBytes, setNumber } from './option-bytes.js';

/**
 * Options of SOL_SOCKET that CRIU's image has fields for (socket(7)); more-options.ts has all others. First those that
 * are a number; those that are not said to be 0 at first are always set.
 */
const NUMBERS = {
  soPriority: S.SO_PRIORITY,
  soRcvlowat: S.SO_RCVLOWAT,
  soMark: S.SO_MARK,
  soOobinline: S.SO_OOBINLINE,
} as const;

const SWITCHES = {
  reuseaddr: S.SO_REUSEADDR,
  soPasscred: S.SO_PASSCRED,
  soPasssec: S.SO_PASSSEC,
  soDontroute: S.SO_DONTROUTE,
  soNoCheck: S.SO_NO_CHECK,
  soReuseport: S.SO_REUSEPORT,
  soBroadcast: S.SO_BROADCAST,
  soKeepalive: S.SO_KEEPALIVE,
} as const;

/** What has to be right before a socket gets its address. */
const EARLY = new Set<number>([S.SO_MARK, S.SO_REUSEADDR, S.SO_REUSEPORT]);

type NumberName = keyof typeof NUMBERS;
type SwitchName = keyof typeof SWITCHES;

const IFNAMSIZ = 16;
/** struct sock_filter. */
const INSTRUCTION_SIZE = 8;

/** An eBPF filter cannot be read out of a socket (net/core/filter.c sk_get_filter). */
const EBPF_FILTER = 'an eBPF filter is attached to it (SO_ATTACH_BPF), which the kernel does not show';

/** Why a socket of whatever family cannot be saved, in words; undefined where its options can. */
export function optionProblem(fd: number): string | undefined {
  if (filterLength(fd) === 'ebpf') return EBPF_FILTER;
  return isOfOtherNetwork(fd) ? OTHER_NETWORK : undefined;
}

/** sock_diag(7) and /proc/PID/net tell of one namespace only, and a restore makes all sockets in one. */
const OTHER_NETWORK = 'it is a socket of another network namespace than the root of the tree is in';

/** A socket stays in the namespace it was made in, whoever has it (SO_NETNS_COOKIE, Linux 5.14). */
function isOfOtherNetwork(fd: number): boolean {
  return networkOf(fd) !== ownNetwork();
}

const ownNetwork = perNetwork(() => {
  using own = new OwnedFd(syscall('socket', [S.AF_UNIX, S.SOCK_DGRAM | S.SOCK_CLOEXEC, 0]));
  return networkOf(own.fd);
});

/** Empty where the kernel does not tell. */
function networkOf(fd: number): string {
  return Buffer.from(getBytes(fd, S.SOL_SOCKET, S.SO_NETNS_COOKIE, 8) ?? []).toString('hex');
}

/** What `dumpOptions` asks of every socket. */
const ASKED = [
  ...[S.SO_SNDBUF, S.SO_RCVBUF, S.SO_BUF_LOCK, ...Object.values(NUMBERS), ...Object.values(SWITCHES)].map(
    (option) => ({ option, length: 4 }),
  ),
  { option: S.SO_SNDTIMEO, length: 16 },
  { option: S.SO_RCVTIMEO, length: 16 },
  { option: S.SO_LINGER, length: 8 },
  { option: S.SO_BINDTODEVICE, length: IFNAMSIZ },
].map((each) => ({ level: S.SOL_SOCKET, ...each }));
const INDEX: ReadonlyMap<number, number> = new Map(ASKED.map(({ option }, index) => [option, index]));
let asked: OptionBatch | undefined;

export function dumpOptions(fd: number): sk_opts_entry {
  asked ??= new OptionBatch(ASKED);
  const batch = asked;
  batch.ask(fd);
  const bytes = (option: number): Uint8Array | undefined => batch.bytes(INDEX.get(option) ?? -1);
  const get = (option: number): number => batch.number(INDEX.get(option) ?? -1) ?? 0;
  const options = create(sk_opts_entrySchema, { soSndbuf: get(S.SO_SNDBUF), soRcvbuf: get(S.SO_RCVBUF) });
  [options.soSndTmoSec, options.soSndTmoUsec] = timeOf(bytes(S.SO_SNDTIMEO));
  [options.soRcvTmoSec, options.soRcvTmoUsec] = timeOf(bytes(S.SO_RCVTIMEO));
  for (const [name, option] of Object.entries(NUMBERS)) options[name as NumberName] = get(option);
  for (const [name, option] of Object.entries(SWITCHES)) options[name as SwitchName] = get(option) !== 0;
  const linger = bytes(S.SO_LINGER);
  if (linger !== undefined && linger[0] !== 0)
    options.soLinger = new DataView(linger.buffer, linger.byteOffset).getInt32(4, true);
  options.soBufLock = get(S.SO_BUF_LOCK);
  const device = bytes(S.SO_BINDTODEVICE);
  if (device !== undefined && device.length > 0) options.soBoundDev = fromCString(device);
  options.soFilter = dumpFilter(fd);
  return options;
}

function timeOf(bytes: Uint8Array | undefined): [seconds: bigint, micros: bigint] {
  if (bytes === undefined) return [0n, 0n];
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return [view.getBigUint64(0, true), view.getBigUint64(8, true)];
}

/** SO_GET_FILTER: its length is in instructions, and nothing is copied where there is no room said to be. */
function filterLength(fd: number, room = 0): number | 'ebpf' {
  const length = scratch.length - 8;
  scratch.view.setUint32(length, room, true);
  const result = attempt('getsockopt', [
    fd,
    S.SOL_SOCKET,
    S.SO_ATTACH_FILTER,
    scratch.address,
    scratch.address + BigInt(length),
  ]);
  if (result === -ERRNO.EACCES) return 'ebpf';
  if (result === -ERRNO.EOPNOTSUPP || result === -ERRNO.ENOPROTOOPT) return 0;
  if (result < 0) throw new SyscallError('getsockopt', -result, 'SO_GET_FILTER');
  return scratch.view.getUint32(length, true);
}

/** One number an instruction: code, jt, jf and k of struct sock_filter from the highest bits to the lowest. */
function dumpFilter(fd: number): bigint[] {
  const length = filterLength(fd);
  if (length === 'ebpf') throw new Error(EBPF_FILTER);
  if (length === 0) return [];
  filterLength(fd, length);
  return Array.from({ length }, (_, index) => {
    const at = index * INSTRUCTION_SIZE;
    const high = (scratch.view.getUint16(at, true) << 16) | scratch.view.getUint16(at + 2, false);
    return (BigInt(high >>> 0) << 32n) | BigInt(scratch.view.getUint32(at + 4, true));
  });
}

function restoreFilter(tape: Tape, fd: Result | number, filter: readonly bigint[]): void {
  if (filter.length === 0) return;
  const code = new Uint8Array(filter.length * INSTRUCTION_SIZE);
  const view = new DataView(code.buffer);
  filter.forEach((instruction, index) => {
    const at = index * INSTRUCTION_SIZE;
    const high = Number(instruction >> 32n);
    view.setUint16(at, high >>> 16, true);
    view.setUint16(at + 2, high & 0xffff, false);
    view.setUint32(at + 4, Number(instruction & 0xffff_ffffn), true);
  });
  // struct sock_fprog: u16 len, and the pointer eight bytes in.
  const program = tape.space(words([filter.length, 0, 0, 0]));
  tape.pointer(program, 8, tape.space(code));
  tape.call('setsockopt', [fd, S.SOL_SOCKET, S.SO_ATTACH_FILTER, program, 16]);
}

function setTimeout(tape: Tape, fd: Result | number, option: number, seconds: bigint, micros: bigint): void {
  if (seconds === 0n && micros === 0n) return;
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, seconds, true);
  view.setBigUint64(8, micros, true);
  setBytes(tape, fd, S.SOL_SOCKET, option, bytes);
}

/** What of a fresh socket is not as in the image. */
export function restoreOptions(tape: Tape, fd: Result | number, options: sk_opts_entry): void {
  restoreEarlyOptions(tape, fd, options);
  restoreLateOptions(tape, fd, options);
}

/** To be played before bind(2): the device, and what decides whether others may have the same address. */
export function restoreEarlyOptions(tape: Tape, fd: Result | number, options: sk_opts_entry): void {
  if (options.soBoundDev !== '')
    setBytes(tape, fd, S.SOL_SOCKET, S.SO_BINDTODEVICE, cString(options.soBoundDev));
  restoreSome(tape, fd, options, (option) => EARLY.has(option));
}

/** After the queues were filled: sizes, filters and all that would keep something out. */
export function restoreLateOptions(tape: Tape, fd: Result | number, options: sk_opts_entry): void {
  // The kernel doubles the sizes of buffers that it is given.
  setNumber(tape, fd, S.SOL_SOCKET, S.SO_SNDBUFFORCE, options.soSndbuf >>> 1);
  setNumber(tape, fd, S.SOL_SOCKET, S.SO_RCVBUFFORCE, options.soRcvbuf >>> 1);
  // Being forced counts as being locked against the kernel's own tuning.
  if (Object.hasOwn(options, 'soBufLock'))
    setNumber(tape, fd, S.SOL_SOCKET, S.SO_BUF_LOCK, options.soBufLock);
  setTimeout(tape, fd, S.SO_SNDTIMEO, options.soSndTmoSec, options.soSndTmoUsec);
  setTimeout(tape, fd, S.SO_RCVTIMEO, options.soRcvTmoSec, options.soRcvTmoUsec);
  restoreSome(tape, fd, options, (option) => !EARLY.has(option));
  if (Object.hasOwn(options, 'soLinger'))
    setBytes(tape, fd, S.SOL_SOCKET, S.SO_LINGER, words([1, options.soLinger]));
  restoreFilter(tape, fd, options.soFilter);
}

function restoreSome(
  tape: Tape,
  fd: Result | number,
  options: sk_opts_entry,
  isMeant: (option: number) => boolean,
): void {
  for (const [name, option] of Object.entries(NUMBERS)) {
    const value = options[name as NumberName];
    if (isMeant(option) && Object.hasOwn(options, name) && value !== (option === S.SO_RCVLOWAT ? 1 : 0))
      setNumber(tape, fd, S.SOL_SOCKET, option, value);
  }
  for (const [name, option] of Object.entries(SWITCHES))
    if (isMeant(option) && options[name as SwitchName]) setNumber(tape, fd, S.SOL_SOCKET, option, 1);
}
