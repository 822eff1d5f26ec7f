import * as S from '../../abi/socket.js';
import type { OwnedFd } from '../../kernel/fd.js';
import { scratch } from '../../kernel/memory.js';
import { listDescriptors } from '../../kernel/procfs/descriptors.js';
import { readLink, taskPath } from '../../kernel/procfs/read.js';
import { attempt } from '../../kernel/syscall.js';
import type { Descriptor, DumpContext, Result, Tape } from '../contract.js';
import { openPidfd, takeDescriptor } from '../description/calls.js';
import { objectOf } from '../description/described.js';
import { identify } from '../description/identify.js';
import { perDump } from '../description/state.js';
import { isSilentAsAWhole, lock } from './lock.js';
import { getNumber, setNow, setNumber } from './option-bytes.js';
import { setTcp } from './tcp-calls.js';
import { TCP, type TcpDiag } from './tcp-diag.js';

/**
 * Connections of a frozen tree: silent (lock.ts) and in repair mode (TCP_REPAIR), in which queues and sequence numbers
 * show, and a socket that is closed says nothing to its peer. Repair mode would outlive us, and make the program's calls
 * fail; the guardian ends it then.
 */
export interface Repaired {
  readonly descriptor: Descriptor;
  readonly diag: TcpDiag;
  /** Our duplicate. */
  readonly fd: OwnedFd;
  /** SO_REUSEADDR, which the end of repair mode forgets (net/ipv4/tcp.c TCP_REPAIR_OFF). */
  readonly reuse: number;
}

const repaired = perDump(() => new Map<number, Repaired>());

/** What is in repair mode, by inode; undefined for other sockets. */
export function repairedSocket(inode: number, context: DumpContext): Repaired | undefined {
  return repaired(context).get(inode);
}

const WITHOUT_STREAM = new Set<number>([TCP.close, TCP.listen, TCP.timeWait]);

export function isConnected(state: number): boolean {
  return !WITHOUT_STREAM.has(state);
}

/** `sockets` are connected, one descriptor each. */
export function silence(
  sockets: readonly { descriptor: Descriptor; diag: TcpDiag }[],
  context: DumpContext,
): void {
  if (sockets.length === 0) return;
  const taken: Repaired[] = [];
  const all: Repaired[] = [];
  let undo: Disposable | undefined;
  // Kept first, so that the guardian is the last to be told: until repair mode has ended it is to end it.
  context.keep({
    release() {
      for (const { fd } of taken) fd[Symbol.dispose]();
      undo?.[Symbol.dispose]();
    },
  });
  keepRepaired(all, context);
  // A namespace that is silent as a whole needs no more.
  if (!isSilentAsAWhole(context))
    context.keep(
      lock(
        sockets.map(({ diag }) => diag),
        context,
      ),
    );
  for (const socket of sockets) taken.push(take(socket));
  undo = context.undo?.((tape, take) => {
    for (const { descriptor, reuse } of taken) endRepairOn(tape, take(descriptor), reuse);
  });
  for (const each of taken) {
    all.push(each);
    setTcp(each.fd.fd, S.TCP_REPAIR, S.TCP_REPAIR_ON);
    repaired(context).set(each.diag.inode, each);
  }
}

function take({ descriptor, diag }: { descriptor: Descriptor; diag: TcpDiag }): Repaired {
  using pidfd = openPidfd(descriptor.process.pid);
  const fd = takeDescriptor(pidfd.fd, descriptor.fd, objectOf(descriptor));
  return { descriptor, diag, fd, reuse: getNumber(fd.fd, S.SOL_SOCKET, S.SO_REUSEADDR) ?? 0 };
}

/**
 * Before the lock is kept, so that it is open when repair mode ends: the end of repair mode asks the peer for news
 * (tcp_send_window_probe). It lasts through a kill. The guardian knows how to end it until it has ended; twice is harmless.
 */
function keepRepaired(all: Repaired[], context: DumpContext): void {
  context.keep({
    commit() {
      // Whoever ends repair mode when we are gone reads it off the socket (endRepairsOf).
      for (const { fd, reuse } of all) setNow(fd.fd, S.SOL_SOCKET, S.SO_REUSEADDR, reuse);
    },
    release(outcome) {
      for (let last = all.at(-1); last !== undefined; last = all.at(-1)) {
        if (outcome === 'goes on') endRepair(last.fd.fd, last.reuse);
        last.fd[Symbol.dispose]();
        all.pop();
      }
    },
  });
}

/** These cannot fail on a TCP socket that does not listen. */
function endRepair(fd: number, reuse: number): void {
  for (const [level, option, value] of endOf(reuse)) {
    scratch.view.setInt32(0, value, true);
    attempt('setsockopt', [fd, level, option, scratch.address, 4]);
  }
}

/**
 * Of a process whose dump has left it stopped, after its `commit`: it goes on with its connections, which must be silent
 * no more. Answers how many there were.
 */
export function endRepairsOf(pid: number): number {
  using pidfd = openPidfd(pid);
  let count = 0;
  for (const fd of listDescriptors(pid)) {
    if (!readLink(taskPath(pid, `fd/${fd}`)).startsWith('socket:')) continue;
    using taken = takeDescriptor(pidfd.fd, fd, `descriptor ${fd} of pid ${pid}`);
    if (getNumber(taken.fd, S.SOL_TCP, S.TCP_REPAIR) !== S.TCP_REPAIR_ON) continue;
    endRepair(taken.fd, getNumber(taken.fd, S.SOL_SOCKET, S.SO_REUSEADDR) ?? 0);
    count++;
  }
  return count;
}

function endOf(reuse: number): readonly (readonly [level: number, option: number, value: number])[] {
  return [
    [S.SOL_TCP, S.TCP_REPAIR, S.TCP_REPAIR_OFF],
    [S.SOL_SOCKET, S.SO_REUSEADDR, reuse],
  ];
}

function endRepairOn(tape: Tape, fd: Result, reuse: number): void {
  for (const [level, option, value] of endOf(reuse)) setNumber(tape, fd, level, option, value, true);
  tape.call('close', [fd], 'any');
}

/** Once each description. */
export function byInode(descriptors: readonly Descriptor[]): Map<number, Descriptor> {
  const found = new Map<number, Descriptor>();
  for (const descriptor of descriptors) {
    const inode = identify(descriptor)?.inode;
    if (inode !== undefined && !found.has(inode)) found.set(inode, descriptor);
  }
  return found;
}
