import { ERRNO } from '../../abi/errno.js';
import * as S from '../../abi/socket.js';
import { scratch } from '../../kernel/memory.js';
import { unlessVanished } from '../../kernel/procfs/error.js';
import { readStatus } from '../../kernel/procfs/status.js';
import { attempt } from '../../kernel/syscall.js';
import type { Descriptor, DumpContext } from '../contract.js';
import type { Credentials } from './unix-extras.js';

/** Who made the other end: SO_PEERCRED and SO_PEERGROUPS (net/unix/af_unix.c init_peercred, copy_peercred). */
export function peerOf(fd: number, context: DumpContext): Credentials | undefined {
  const { view, address } = scratch;
  view.setUint32(16, 12, true);
  const result = attempt('getsockopt', [fd, S.SOL_SOCKET, S.SO_PEERCRED, address, address + 16n]);
  if (result < 0) return undefined;
  const [pid, uid, gid] = [view.getInt32(0, true), view.getUint32(4, true), view.getUint32(8, true)];
  // Nobody: uid and gid are −1 (SOCK_DGRAM without a pair, sockets that never were connected).
  if (uid === 0xffff_ffff) return undefined;
  return { pid: insidePid(pid, context), uid, gid, groups: groupsOf(fd) };
}

const GROUPS_MAX = 65536 / 8;

function groupsOf(fd: number): number[] {
  const { view, address } = scratch;
  view.setUint32(0, GROUPS_MAX * 4, true);
  const result = attempt('getsockopt', [fd, S.SOL_SOCKET, S.SO_PEERGROUPS, address + 16n, address]);
  if (result < 0) return [];
  return Array.from({ length: view.getUint32(0, true) >> 2 }, (_, index) =>
    view.getUint32(16 + index * 4, true),
  );
}

/** Who has the descriptor, as he would be seen by who accepts from him. */
export function selfOf({ process }: Descriptor): Credentials {
  const { status } = process.leader;
  return {
    pid: process.insidePid,
    uid: status.uid.effective,
    gid: status.gid.effective,
    groups: [...status.groups],
  };
}

/** The id in the tree's pid namespace of a pid as we see it; 0 stays 0. */
export function insidePid(pid: number, { processes }: DumpContext): number {
  if (pid <= 0) return 0;
  const member = processes.find((process) => process.pid === pid);
  if (member !== undefined) return member.insidePid;
  return unlessVanished(() => readStatus(pid).nsPid.at(-1)) ?? pid;
}

/** getpeername(2), of a peer that may be closed. */
export function peerName(fd: number): Uint8Array | undefined {
  const { view, address, bytes } = scratch;
  view.setUint32(0, 110, true);
  const result = attempt('getpeername', [fd, address + 16n, address]);
  if (result === -ERRNO.ENOTCONN || result < 0) return undefined;
  const length = view.getUint32(0, true);
  return length > 2 ? bytes.slice(18, 16 + length) : undefined;
}
