import { ERRNO } from '../../abi/errno.js';
import * as S from '../../abi/socket.js';
import { SyscallError } from '../../kernel/errors.js';
import { type NativeMemory, scratch } from '../../kernel/memory.js';
import { attempt, syscall } from '../../kernel/syscall.js';

/** One recvmsg(2) with MSG_PEEK, and its control messages: cmsg(3), unix(7). */
export interface Peeked {
  readonly length: number;
  /** Descriptors that came along, ours now. */
  readonly rights: readonly number[];
  /** A control message says who sent it, if only that nobody said so. */
  readonly hasSender: boolean;
  readonly sender: readonly [pid: number, uid: number, gid: number] | undefined;
  readonly from: Uint8Array | undefined;
  /** The packet is longer than there was room for. */
  readonly isCut: boolean;
}

/** struct msghdr, its iovec, the sender's address and the control messages, in the scratch memory. */
const AT = { header: 0, iov: 64, name: 128, control: 256 } as const;
const NAME_SIZE = 110;
const CONTROL_SIZE = 8192;
const HEADER = { name: 0, nameLength: 8, iov: 16, iovCount: 24, control: 32, controlLength: 40, flags: 48 };
const CMSG_HEADER = 16;
const FAMILY_SIZE = 2;

export function peek(fd: number, memory: NativeMemory, length: number): Peeked | 'empty' {
  const { view, address } = scratch;
  const base = AT.header;
  scratch.bytes.fill(0, 0, AT.control);
  view.setBigUint64(base + HEADER.name, address + BigInt(AT.name), true);
  view.setUint32(base + HEADER.nameLength, NAME_SIZE, true);
  view.setBigUint64(base + HEADER.iov, address + BigInt(AT.iov), true);
  view.setBigUint64(base + HEADER.iovCount, 1n, true);
  view.setBigUint64(base + HEADER.control, address + BigInt(AT.control), true);
  view.setBigUint64(base + HEADER.controlLength, BigInt(CONTROL_SIZE), true);
  view.setBigUint64(AT.iov, memory.address, true);
  view.setBigUint64(AT.iov + 8, BigInt(length), true);
  const flags = S.MSG_PEEK | S.MSG_DONTWAIT | S.MSG_CMSG_CLOEXEC;
  const result = attempt('recvmsg', [fd, address, flags]);
  if (result === -ERRNO.EAGAIN) return 'empty';
  if (result < 0) throw new SyscallError('recvmsg', -result, 'a Unix socket');
  const end = AT.control + Number(view.getBigUint64(base + HEADER.controlLength, true));
  const said = view.getUint32(base + HEADER.flags, true);
  const nameLength = view.getUint32(base + HEADER.nameLength, true);
  const control = controlIn(end);
  if ((said & S.MSG_CTRUNC) !== 0) {
    closeAll(control.rights);
    throw new SyscallError('recvmsg', ERRNO.EMFILE, 'descriptors in flight');
  }
  return {
    length: result,
    ...control,
    from:
      nameLength > FAMILY_SIZE ? scratch.bytes.slice(AT.name + FAMILY_SIZE, AT.name + nameLength) : undefined,
    isCut: (said & S.MSG_TRUNC) !== 0,
  };
}

/** As `peek`, but the last byte has nowhere to go: how many bytes are there of what fits before it whole? */
export function peekWhole(fd: number, memory: NativeMemory, length: number): number {
  const { view, address } = scratch;
  scratch.bytes.fill(0, 0, AT.control);
  view.setBigUint64(AT.header + HEADER.iov, address + BigInt(AT.iov), true);
  view.setBigUint64(AT.header + HEADER.iovCount, 2n, true);
  view.setBigUint64(AT.iov, memory.address, true);
  view.setBigUint64(AT.iov + 8, BigInt(length - 1), true);
  // Nothing is ever mapped at the lowest page (vm.mmap_min_addr).
  view.setBigUint64(AT.iov + 16, 8n, true);
  view.setBigUint64(AT.iov + 24, 1n, true);
  const result = attempt('recvmsg', [fd, address, S.MSG_PEEK | S.MSG_DONTWAIT]);
  if (result === -ERRNO.EFAULT) return 0;
  if (result < 0) throw new SyscallError('recvmsg', -result, 'a Unix socket');
  return result;
}

function controlIn(end: number): Pick<Peeked, 'rights' | 'hasSender' | 'sender'> {
  const { view } = scratch;
  const rights: number[] = [];
  const strangers: number[] = [];
  let hasSender = false;
  let sender: Peeked['sender'];
  for (let at = AT.control as number; at + CMSG_HEADER <= end; ) {
    const size = Number(view.getBigUint64(at, true));
    if (size < CMSG_HEADER) break;
    const type = view.getInt32(at + 12, true);
    const data = at + CMSG_HEADER;
    if (view.getInt32(at + 8, true) === S.SOL_SOCKET) {
      const into = type === S.SCM_RIGHTS ? rights : type === S.SCM_PIDFD ? strangers : undefined;
      for (let each = data; into !== undefined && each + 4 <= at + size; each += 4)
        into.push(view.getInt32(each, true));
      if (type === S.SCM_CREDENTIALS) {
        hasSender = true;
        const pid = view.getInt32(data, true);
        // Without a pid the ids are the kernel's "nobody said" (scm_recv, INVALID_UID).
        if (pid !== 0) sender = [pid, view.getUint32(data + 4, true), view.getUint32(data + 8, true)];
      }
    }
    at += (size + 7) & ~7;
  }
  closeAll(strangers);
  return { rights, hasSender, sender };
}

export function closeAll(fds: readonly number[]): void {
  for (const fd of fds) if (fd >= 0) syscall('close', [fd]);
}
