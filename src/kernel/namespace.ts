import { fstatSync } from 'node:fs';
import { ERRNO } from '../abi/errno.js';
import { AT_FDCWD, O_CLOEXEC, O_RDONLY } from '../abi/fcntl.js';
import { CLONE_NEWNET } from '../abi/process.js';
import { SyscallError } from './errors.js';
import { OwnedFd } from './fd.js';
import { insistOnAll } from './insist.js';
import { scratchString } from './memory.js';
import { unlessHidden } from './procfs/error.js';
import { readMountinfo } from './procfs/mountinfo.js';
import { readNamespace } from './procfs/ns.js';
import { readNumbers } from './procfs/read.js';
import { syscall } from './syscall.js';

/**
 * Which network namespace this thread is in (network_namespaces(7)). Sockets are made in it, sock_diag(7) and nftables tell of
 * it, and so do /proc/thread-self/net and /proc/sys/net, which is that of the thread that looks; whoever is cloned by it is
 * born in it. So a dump or a restore of a tree that lives in another one enters that for as long as it takes, and nothing
 * below it has to know. Threads of V8 and libuv that there are already stay where they are (setns(2) is of one thread).
 */
export class Network implements Disposable {
  /** Of the namespace that was entered. */
  readonly inode: bigint;
  /** Of the one this thread was in before, and will be in after. */
  readonly home: bigint;
  readonly #there: OwnedFd;
  readonly #before: OwnedFd;

  private constructor(there: OwnedFd, before: OwnedFd) {
    this.#there = there;
    this.#before = before;
    this.inode = identityOf(there).ino;
    this.home = identityOf(before).ino;
  }

  /** @throws SyscallError; of setns(2), EPERM: no CAP_SYS_ADMIN over it, EINVAL: it is no network namespace */
  static enter(path: string): Network {
    const what = `network namespace ${path}`;
    const there = openNamespace(path, what);
    let before: OwnedFd | undefined;
    try {
      before = openNamespace(OWN_NETWORK, HOME);
      const [to, from] = [identityOf(there), identityOf(before)];
      // Whoever is there already needs no privilege.
      const network = new Network(there, before);
      // The last step: whoever fails before it has gone nowhere.
      if (to.dev !== from.dev || to.ino !== from.ino) join(there, what);
      return network;
    } catch (error) {
      there[Symbol.dispose]();
      before?.[Symbol.dispose]();
      throw error;
    }
  }

  /** That of a process; of one that has ended, or is about to, our own. @throws SyscallError */
  static of(pid: number): Network {
    try {
      return Network.enter(`/proc/${pid}/ns/net`);
    } catch (error) {
      if (!(error instanceof SyscallError) || !ENDED.has(error.errno)) throw error;
      return Network.enter(OWN_NETWORK);
    }
  }

  /** One that is just born, with nothing in it but lo, which is down. @throws SyscallError (EPERM: no CAP_SYS_ADMIN) */
  static fresh(): Network {
    const before = openNamespace(OWN_NETWORK, HOME);
    let there: OwnedFd | undefined;
    let isBorn = false;
    try {
      syscall('unshare', [CLONE_NEWNET], 'a new network namespace');
      isBorn = true;
      visits++;
      there = openNamespace(OWN_NETWORK, 'the new network namespace');
      return new Network(there, before);
    } catch (error) {
      there?.[Symbol.dispose]();
      using _ = before;
      if (isBorn) join(before, HOME);
      throw error;
    }
  }

  get isForeign(): boolean {
    return this.inode !== this.home;
  }

  /** Where this thread was before: for what starts programs of the caller's. */
  outside<T>(step: () => T): T {
    if (!this.isForeign) return step();
    join(this.#before, HOME);
    try {
      return step();
    } finally {
      join(this.#there, 'the network namespace of the tree');
    }
  }

  /** Whoever is done has reached what it came for: that is not to fail by its leaving. */
  [Symbol.dispose](): void {
    insistOnAll([
      () => this.isForeign && join(this.#before, HOME),
      () => this.#before[Symbol.dispose](),
      () => this.#there[Symbol.dispose](),
    ]);
  }
}

/** Where this thread is. */
export const OWN_NETWORK = '/proc/thread-self/ns/net';
const HOME = 'our own network namespace';
/** The links of a task that is ending are denied even to root. */
const ENDED = new Set<number>([ERRNO.ENOENT, ERRNO.ESRCH, ERRNO.EACCES]);

function openNamespace(path: string, what: string): OwnedFd {
  return new OwnedFd(syscall('openat', [AT_FDCWD, scratchString(path), O_RDONLY | O_CLOEXEC, 0], what));
}

function identityOf({ fd }: OwnedFd): { readonly dev: bigint; readonly ino: bigint } {
  return fstatSync(fd, { bigint: true });
}

function join({ fd }: OwnedFd, what: string): void {
  syscall('setns', [fd, CLONE_NEWNET], what);
  visits++;
}

let visits = 0;

/** What `ask` answers, remembered until this thread goes to another network namespace. */
export function perNetwork<T>(ask: () => T): () => T {
  let known: { readonly visit: number; readonly answer: T } | undefined;
  return () => {
    if (known?.visit !== visits) known = { visit: visits, answer: ask() };
    return known.answer;
  };
}

/**
 * Network namespaces that somebody keeps, by inode, each with a path that leads to it: those of processes (but `except`), and
 * those with a name in the mount namespace of this process, as ip-netns(8) gives them. Not those only a descriptor keeps.
 */
export function networks(except: ReadonlySet<number> = new Set()): Map<bigint, string> {
  const found = new Map<bigint, string>();
  for (const { type, root, mountPoint } of readMountinfo(process.pid)) {
    const inode = type === 'nsfs' ? /^net:\[(\d+)\]$/.exec(root)?.[1] : undefined;
    if (inode !== undefined) found.set(BigInt(inode), mountPoint);
  }
  for (const pid of readNumbers('/proc')) {
    if (except.has(pid)) continue;
    const inode = networkOf(pid);
    if (inode !== undefined && !found.has(inode)) found.set(inode, `/proc/${pid}/ns/net`);
  }
  return found;
}

/** Undefined of who has ended, or may not be looked at. */
function networkOf(pid: number): bigint | undefined {
  return unlessHidden(() => readNamespace(pid, 'net').inode);
}
