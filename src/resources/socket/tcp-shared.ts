import { readComm } from '../../kernel/procfs/cmdline.js';
import { allDescriptors, listDescriptors } from '../../kernel/procfs/descriptors.js';
import { unlessHidden } from '../../kernel/procfs/error.js';
import { readLink, taskPath } from '../../kernel/procfs/read.js';
import { type DumpOptions, nameOf, type Process, type Refuse } from '../contract.js';
import { tcpDiags } from './tcp-diag.js';
import { isConnected } from './tcp-silence.js';

const LINK = /^socket:\[(\d+)\]$/;

/**
 * A connection that a process outside of the tree has as well would be silent under it while the tree is saved, and
 * keeps its addresses after the tree was killed, so that nobody could take them again. Only /proc says who has a socket.
 */
export function checkShared(processes: readonly Process[], refuse: Refuse, options: DumpOptions): void {
  if (!options.tcpEstablished) return;
  const connected = tcpDiags().filter(({ state, inode }) => inode !== 0 && isConnected(state));
  const inodes = new Set(connected.map(({ inode }) => inode));
  const own = new Map<number, { readonly process: Process; readonly fd: number }>();
  for (const process of processes)
    for (const [inode, fd] of socketsOf(process.pid, unlessHidden(() => listDescriptors(process.pid)) ?? []))
      if (inodes.has(inode)) own.set(inode, { process, fd });
  if (own.size === 0) return;
  const tree = new Set(processes.map(({ pid }) => pid));
  for (const [pid, fds] of allDescriptors(tree)) {
    for (const [inode] of socketsOf(pid, fds)) {
      const holder = own.get(inode);
      if (holder === undefined) continue;
      // Once is enough.
      own.delete(inode);
      refuse({
        task: nameOf(holder.process),
        object: `descriptor ${holder.fd} (socket:[${inode}])`,
        reason: `pid ${pid} (${unlessHidden(() => readComm(pid)) ?? 'gone'}), which is not of the tree, has this connection open as well`,
        help: 'save a tree that both are in, or close it in one of them',
      });
    }
  }
}

/** Those that are sockets; not what is closed by now, or does not let itself be looked at. */
function* socketsOf(pid: number, fds: readonly number[]): Generator<[inode: number, fd: number]> {
  for (const fd of fds) {
    const [, inode] = LINK.exec(unlessHidden(() => readLink(taskPath(pid, `fd/${fd}`))) ?? '') ?? [];
    if (inode !== undefined) yield [Number(inode), fd];
  }
}
