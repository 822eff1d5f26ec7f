import { create } from '@bufbuild/protobuf';
import { ERRNO } from '../../abi/errno.js';
import * as S from '../../abi/socket.js';
import { type sk_opts_entry, sk_opts_entrySchema } from '../../image/index.js';
import { SyscallError } from '../../kernel/errors.js';
import { scratch } from '../../kernel/memory.js';
import { attempt } from '../../kernel/syscall.js';
import type { Result, Tape } from '../contract.js';

/** Options of SOL_SOCKET that are a number; those that are not said to be 0 at first are always set. */
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

type NumberName = keyof typeof NUMBERS;
type SwitchName = keyof typeof SWITCHES;

/** An option's bytes into the scratch memory; false where this family has none of that name. */
function get(fd: number, option: number, length: number): boolean {
  const at = scratch.address + 64n;
  scratch.view.setUint32(64, length, true);
  const result = attempt('getsockopt', [fd, S.SOL_SOCKET, option, scratch.address, at]);
  if (result === -ERRNO.EOPNOTSUPP || result === -ERRNO.ENOPROTOOPT) return false;
  if (result < 0) throw new SyscallError('getsockopt', -result, `option ${option}`);
  return true;
}

function getNumber(fd: number, option: number): number {
  return get(fd, option, 4) ? scratch.view.getInt32(0, true) : 0;
}

export function dumpOptions(fd: number): sk_opts_entry {
  const options = create(sk_opts_entrySchema, {
    soSndbuf: getNumber(fd, S.SO_SNDBUF),
    soRcvbuf: getNumber(fd, S.SO_RCVBUF),
  });
  get(fd, S.SO_SNDTIMEO, 16);
  options.soSndTmoSec = scratch.view.getBigUint64(0, true);
  options.soSndTmoUsec = scratch.view.getBigUint64(8, true);
  get(fd, S.SO_RCVTIMEO, 16);
  options.soRcvTmoSec = scratch.view.getBigUint64(0, true);
  options.soRcvTmoUsec = scratch.view.getBigUint64(8, true);
  for (const [name, option] of Object.entries(NUMBERS)) options[name as NumberName] = getNumber(fd, option);
  for (const [name, option] of Object.entries(SWITCHES))
    options[name as SwitchName] = getNumber(fd, option) !== 0;
  if (get(fd, S.SO_LINGER, 8) && scratch.view.getInt32(0, true) !== 0)
    options.soLinger = scratch.view.getInt32(4, true);
  options.soBufLock = getNumber(fd, S.SO_BUF_LOCK);
  return options;
}

function set(tape: Tape, fd: Result | number, option: number, values: readonly number[]): void {
  const bytes = new Uint8Array(values.length * 4);
  const view = new DataView(bytes.buffer);
  values.forEach((value, index) => {
    view.setInt32(index * 4, value, true);
  });
  tape.call('setsockopt', [fd, S.SOL_SOCKET, option, tape.space(bytes), bytes.length]);
}

function setTimeout(tape: Tape, fd: Result | number, option: number, seconds: bigint, micros: bigint): void {
  if (seconds === 0n && micros === 0n) return;
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, seconds, true);
  view.setBigUint64(8, micros, true);
  tape.call('setsockopt', [fd, S.SOL_SOCKET, option, tape.space(bytes), bytes.length]);
}

/** What of a fresh socket is not as in the image. The kernel doubles the sizes of buffers that it is given. */
export function restoreOptions(tape: Tape, fd: Result | number, options: sk_opts_entry): void {
  set(tape, fd, S.SO_SNDBUFFORCE, [options.soSndbuf >>> 1]);
  set(tape, fd, S.SO_RCVBUFFORCE, [options.soRcvbuf >>> 1]);
  // Being forced counts as being locked against the kernel's own tuning.
  if (Object.hasOwn(options, 'soBufLock')) set(tape, fd, S.SO_BUF_LOCK, [options.soBufLock]);
  setTimeout(tape, fd, S.SO_SNDTIMEO, options.soSndTmoSec, options.soSndTmoUsec);
  setTimeout(tape, fd, S.SO_RCVTIMEO, options.soRcvTmoSec, options.soRcvTmoUsec);
  for (const [name, option] of Object.entries(NUMBERS)) {
    const value = options[name as NumberName];
    if (value !== (option === S.SO_RCVLOWAT ? 1 : 0)) set(tape, fd, option, [value]);
  }
  for (const [name, option] of Object.entries(SWITCHES))
    if (options[name as SwitchName]) set(tape, fd, option, [1]);
  if (Object.hasOwn(options, 'soLinger')) set(tape, fd, S.SO_LINGER, [1, options.soLinger]);
}
