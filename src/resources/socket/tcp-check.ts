import * as S from '../../abi/socket.js';
import { type Descriptor, type DumpContext, type DumpOptions, nameOf, type Refuse } from '../contract.js';
import { refusalOf } from '../description/described.js';
import { throughDuplicate } from '../description/duplicate.js';
import { identify } from '../description/identify.js';
import { holdNew } from './lock.js';
import { optionProblem } from './options.js';
import { tcpInfo } from './tcp-calls.js';
import { TCP, type TcpDiag, tcpDiags } from './tcp-diag.js';
import { byInode, isConnected } from './tcp-silence.js';

/** What of TCP sockets cannot be saved, ever or just now. */
export function diagsByInode(diags: readonly TcpDiag[]): Map<number, TcpDiag> {
  return new Map(diags.filter(({ inode }) => inode !== 0).map((diag) => [diag.inode, diag]));
}

/** Of several paths (RFC 8684), MPTCP has no repair mode; a listener has nothing that would need one. */
export const PROTOCOLS = new Set<number>([S.IPPROTO_TCP, S.IPPROTO_MPTCP]);

export function isMptcp(descriptor: Descriptor): boolean {
  return identify(descriptor)?.protocol === S.IPPROTO_MPTCP;
}

export function mptcpProblem(descriptor: Descriptor): Problem | undefined {
  return throughDuplicate(descriptor, (fd) => {
    const { state, waiting } = tcpInfo(fd);
    if (state === TCP.listen && waiting > 0) return [`${waiting} MPTCP connections have not been accepted`];
    return isConnected(state)
      ? ['it is an MPTCP connection, and the kernel has no repair mode for those']
      : undefined;
  });
}

/** Before the freeze. */
export function checkSockets(descriptors: readonly Descriptor[], refuse: Refuse, options: DumpOptions): void {
  const diags = diagsByInode(tcpDiags());
  for (const [inode, descriptor] of byInode(descriptors)) {
    const diag = diags.get(inode);
    const filter = throughDuplicate(descriptor, optionProblem);
    if (filter !== undefined) refuse(refusalOf(descriptor, filter));
    const own = diag === undefined ? undefined : problemOf(diag, options);
    const problem = isMptcp(descriptor) ? mptcpProblem(descriptor) : own;
    if (problem !== undefined) refuse(refusalOf(descriptor, ...problem));
  }
}

type Problem = readonly [reason: string, help?: string];

export function problemOf(diag: TcpDiag, options: DumpOptions): Problem | undefined {
  if (diag.hasMd5) return ['its segments are signed (TCP_MD5SIG), and the kernel does not show the keys'];
  if (diag.upperLayer !== undefined)
    return [`${diag.upperLayer} has been put on top of it (TCP_ULP), whose state cannot be read`];
  if (isConnected(diag.state) && !options.tcpEstablished && options.tcpClose !== true)
    return ['it is connected', '--tcp-established saves it, --tcp-close makes it a closed socket'];
  return undefined;
}

interface Listener {
  readonly descriptor: Descriptor;
  readonly diag: TcpDiag;
  /** What sock_diag says of everybody. */
  readonly all: readonly TcpDiag[];
  /** Of all listeners of the tree. */
  readonly ports: readonly number[];
}

/**
 * Connections that nobody has accepted, or that are about to become such, have no descriptor by which they could be
 * saved. They are accepted in a moment, most of the time.
 */
export function refuseWaiting({ descriptor, diag, all, ports }: Listener, context: DumpContext): void {
  if (context.options.skipInFlight === true) return;
  const { port } = diag.local;
  const halfOpen = all.filter(
    ({ state, inode, local }) => state === TCP.synReceived && inode === 0 && local.port === port,
  ).length;
  const waiting = diag.receiveQueue + halfOpen;
  if (waiting === 0) return;
  context.retry(
    refusalOf(
      descriptor,
      `${waiting} connections to port ${port} have not been accepted`,
      'wait until the program has accepted them, or drop them (--skip-in-flight)',
    ),
    () => holdNew(ports),
  );
}

const LEAVING = new Set<number>([TCP.finWait1, TCP.closing, TCP.lastAck]);

/**
 * Connections that a program has closed, with something left to say. They go on in their network namespace without a
 * descriptor, but not in one that ends with the tree; it is said in a moment, most of the time.
 */
export function refuseLeaving(all: readonly TcpDiag[], descriptor: Descriptor, context: DumpContext): void {
  if (context.ownNetwork !== 'saved') return;
  for (const { inode, state, sendQueue, local } of all)
    if (inode === 0 && LEAVING.has(state) && sendQueue > 0)
      context.retry({
        task: nameOf(descriptor.process),
        object: `a closed TCP connection of port ${local.port}`,
        reason: `${sendQueue} bytes of it (its end counts as one) have not been received, and its network namespace ends with the tree`,
      });
}
