import { randomBytes } from 'node:crypto';
import { ERRNO } from '../../abi/errno.js';
import { AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW } from '../../abi/socket.js';
import { SyscallError } from '../../kernel/errors.js';
import type { NetlinkMessage } from '../../kernel/netlink/message.js';
import { listTables, openNftables, PASSING_NOTE, transactionBytes } from '../../kernel/netlink/nftables.js';
import { NETLINK_NETFILTER, type Netlink } from '../../kernel/netlink/socket.js';
import type { DumpContext, Kept, Result, Tape } from '../contract.js';
import { holdMessages, lockMessages, type Silent, unlockMessages } from './lock-table.js';

/**
 * The network lock: connections of a frozen tree are silent. While we work the table is owned by our netlink socket and
 * goes when we do, whatever happens (NFT_TABLE_F_OWNER, Linux 5.12; the guardian removes it on older ones). A dump that
 * will kill its tree leaves a lasting one, named after the image as CRIU does, which the restore removes.
 */
export function lastingTable(runId: string): string {
  return `CRIU-${runId.slice(0, RUN_ID_USED)}`;
}

/** CRIU has room for so much of it, and removes the table by this name when it restores an image of ours. */
const RUN_ID_USED = 21;

/** Whose a lasting table is: of the image in this directory, and of the tree that was saved there. */
export interface LockOwner {
  readonly directory: string;
  /** The root, and when it began (clock ticks after boot, proc_pid_stat(5) starttime): pids are used again. */
  readonly pid: number;
  readonly starttime: number;
}

/** Says it to whoever lists tables. */
function noteOf({ directory, pid, starttime }: LockOwner): Uint8Array {
  return new TextEncoder().encode(`stasis pid ${pid}@${starttime} image ${directory}`).subarray(0, NOTE_MAX);
}

/** Undefined where it is no table of ours. */
function ownerOf(note: Uint8Array | undefined): LockOwner | undefined {
  const text = new TextDecoder().decode(note ?? new Uint8Array());
  const [, pid, starttime, directory] = /^stasis pid (\d+)@(\d+) image (.*)$/s.exec(text) ?? [];
  if (directory === undefined) return undefined;
  return { directory, pid: Number(pid), starttime: Number(starttime) };
}

/** Every lasting table of this network namespace, CRIU's as well, whose owner is not known. */
export function lastingLocks(): { table: string; owner: LockOwner | undefined }[] {
  try {
    using netlink = openNftables();
    return listTables(netlink)
      .map(({ name, note }) => ({ table: name, owner: ownerOf(note) }))
      .filter(({ table, owner }) => owner !== undefined || table.startsWith(lastingTable('')));
  } catch (error) {
    if (error instanceof SyscallError) return [];
    throw error;
  }
}

/** NFT_USERDATA_MAXLEN. */
const NOTE_MAX = 256;

export type Undo = NonNullable<DumpContext['undo']>;

/** A table that goes with us. */
export class OwnedLock implements Disposable {
  readonly #netlink: Netlink;
  readonly #undo: Disposable | undefined;

  private constructor(netlink: Netlink, undo: Disposable | undefined) {
    this.#netlink = netlink;
    this.#undo = undo;
  }

  /** From its return on nothing comes in for what is to be silent, and nothing goes out. */
  static make(silent: Silent, undo: Undo | undefined): OwnedLock {
    const name = nameOfPassing();
    const netlink = openNftables();
    try {
      const owner = makeOwned(netlink, name, silent, undo);
      return new OwnedLock(netlink, owner);
    } catch (error) {
      netlink[Symbol.dispose]();
      throw explain(error);
    }
  }

  [Symbol.dispose](): void {
    this.#undo?.[Symbol.dispose]();
    this.#netlink[Symbol.dispose]();
  }
}

/**
 * Keep new connections from ports for a while: who asks for one asks again a second later. Where tables cannot have
 * owners, nobody is kept off, rather than for ever.
 */
export function holdNew(ports: readonly number[]): Disposable {
  const netlink = openNftables();
  try {
    netlink.batch(holdMessages(nameOfPassing(), ports));
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
  }
  return netlink;
}

/** CRIU's numbers. */
const NFTABLES = 1;
const SKIPPED = 2;

/** The lock of a dump: from here on until the tree goes on, or for as long as the image waits for its restore. */
export function lock(silent: Silent, context: DumpContext): Kept {
  const { inventory, options, undo: guard } = context;
  if (options.networkLock === 'skip') {
    inventory.networkLockMethod = SKIPPED;
    return { release: () => {} };
  }
  inventory.networkLockMethod = NFTABLES;
  const name = lastingTable(inventory.dumpCriuRunId);
  const owned = OwnedLock.make(silent, guard);
  let undo: Disposable | undefined;
  return {
    commit() {
      undo = guard?.((tape) => unlockOn(tape, name));
      lockLastingly(name, silent, ownerIn(context));
    },
    release(outcome) {
      if (outcome === 'goes on' && undo !== undefined) unlock(name);
      undo?.[Symbol.dispose]();
      owned[Symbol.dispose]();
    },
  };
}

function ownerIn({ writer, processes: [root] }: DumpContext): LockOwner {
  return { directory: writer.directory, pid: root?.pid ?? 0, starttime: root?.stat.starttime ?? 0 };
}

/**
 * Whatever goes in or out of a network namespace that ends with the tree. One that stays is not ours to make silent, for
 * others live in it; CRIU does so, and whoever asks for what CRIU does gets it.
 */
export function isSilentAsAWhole({ ownNetwork, options }: DumpContext): boolean {
  return ownNetwork === 'saved' || (ownNetwork === 'stays' && options.joinable === true);
}

/** As `lock`, of a tree that does not live in the network namespace of the dumping process. */
export function lockNetwork(context: DumpContext): Kept | undefined {
  if (isSilentAsAWhole(context)) return lock('everything', context);
  // Until a connection is: the restore need not look for rules of iptables where others live.
  context.inventory.networkLockMethod = SKIPPED;
  return undefined;
}

function nameOfPassing(): string {
  return `stasis-${process.pid}-${randomBytes(8).toString('hex')}`;
}

const NO_OWNERS = new Set<number>([ERRNO.EOPNOTSUPP, ERRNO.EINVAL]);

function makeOwned(
  netlink: Netlink,
  name: string,
  silent: Silent,
  undo: Undo | undefined,
): Disposable | undefined {
  try {
    netlink.batch(lockMessages(name, silent, true, PASSING_NOTE));
    // Our death lets the tree go a little before it closes the socket. A segment is said again; a datagram is lost.
    return silent === 'everything' ? undo?.((tape) => unlockThrough(tape, netlink.fd, name)) : undefined;
  } catch (error) {
    if (!(error instanceof SyscallError) || !NO_OWNERS.has(error.errno)) throw error;
  }
  const guarded = undo?.((tape) => unlockOn(tape, name));
  sendAnew(lockMessages(name, silent, false, PASSING_NOTE));
  return {
    [Symbol.dispose]: () => {
      unlock(name);
      guarded?.[Symbol.dispose]();
    },
  };
}

/** On a socket of its own: one that had a request refused has answers left over. */
function sendAnew(messages: readonly NetlinkMessage[]): void {
  using netlink = openNftables();
  netlink.batch(messages);
}

function explain(error: unknown): unknown {
  if (!(error instanceof SyscallError)) return error;
  return new Error(
    `connections cannot be made silent: nftables says ${error.message}; without it use --network-lock skip, and keep packets from them yourself`,
    { cause: error },
  );
}

/** The table that stays when we are gone. */
export function lockLastingly(name: string, silent: Silent, owner: LockOwner): void {
  sendAnew(lockMessages(name, silent, false, noteOf(owner)));
}

/** False where there was no such table. */
export function unlock(name: string): boolean {
  try {
    sendAnew(unlockMessages(name));
    return true;
  } catch (error) {
    if (error instanceof SyscallError && NOT_THERE.has(error.errno)) return false;
    throw error;
  }
}

/** Kernels without nftables have no table of it either. */
const NOT_THERE = new Set<number>([ERRNO.ENOENT, ERRNO.EPROTONOSUPPORT, ERRNO.EAFNOSUPPORT]);

/** Entries that remove a table, on the tape of whoever plays it. */
export function unlockOn(tape: Tape, name: string): void {
  remove(tape, tape.call('socket', [AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER], 'any'), name);
}

/** The same for a table that is owned: only its owner may, `fd` of this process, which stands still at its exit. */
function unlockThrough(tape: Tape, fd: number, name: string): void {
  const us = tape.call('pidfd_open', [process.pid, 0], 'any');
  remove(tape, tape.call('pidfd_getfd', [us, fd, 0], 'any'), name);
  tape.call('close', [us], 'any');
}

function remove(tape: Tape, fd: Result, name: string): void {
  const bytes = transactionBytes(unlockMessages(name));
  tape.call('sendto', [fd, tape.space(bytes), bytes.length, 0, 0, 0], 'any');
  tape.call('close', [fd], 'any');
}
