import { createMessage, type MessageOf } from '../image/index.js';
import { readNamespaces } from '../kernel/procfs/ns.js';
import { syscall } from '../kernel/syscall.js';
import type { Process } from '../resources/contract.js';

/**
 * Which processes share a kernel object, by kcmp(2), and which namespaces they are in. Equal ids in an image mean the
 * same object; those of the inventory's `root_ids` are the dumping process's own.
 */

/** What kcmp compares. */
const KCMP = { vm: 1, files: 2, fs: 3, sighand: 4 } as const;
type Shared = keyof typeof KCMP;

/** Namespaces in the order in which they get their ids; a name's second form is for children to come. */
const NAMESPACES = ['pid', 'net', 'ipc', 'uts', 'time', 'mnt', 'user', 'cgroup'] as const;

export type Ids = MessageOf<'ids'>;

/** Ids for the whole tree. Our own come first, so that "as the dumping process" is recognisable. */
export class Identities {
  readonly root: Ids;
  readonly #ids = new Map<Process, Ids>();
  readonly #namespaces = new Map<string, number>();

  /** `home` is the network namespace of the dumping process, by inode, which is a visitor in the tree's now. */
  constructor(processes: readonly Process[], home: bigint) {
    this.root = createMessage('ids', {
      vmId: 1,
      filesId: 1,
      fsId: 1,
      sighandId: 1,
      ...this.#namespacesOf(process.pid, home),
    });
    const living = processes.filter(({ state }) => state !== 'zombie');
    const classes = {
      vm: classify(living, 'vm'),
      files: classify(living, 'files'),
      fs: classify(living, 'fs'),
      sighand: classify(living, 'sighand'),
    };
    for (const member of living)
      this.#ids.set(
        member,
        createMessage('ids', {
          vmId: classes.vm.get(member) ?? 0,
          filesId: classes.files.get(member) ?? 0,
          fsId: classes.fs.get(member) ?? 0,
          sighandId: classes.sighand.get(member) ?? 0,
          ...this.#namespacesOf(member.pid),
        }),
      );
  }

  of(member: Process): Ids {
    const ids = this.#ids.get(member);
    if (ids === undefined) throw new Error(`pid ${member.pid} has no ids`);
    return ids;
  }

  /** The id of a namespace that a process of the tree, or this one, is in. */
  namespaceId(type: string, inode: bigint): number | undefined {
    return this.#namespaces.get(`${type}:${inode}`);
  }

  #namespacesOf(pid: number, network?: bigint) {
    const links = readNamespaces(pid);
    const id = (name: (typeof NAMESPACES)[number]): number => {
      const inode = name === 'net' && network !== undefined ? network : links.get(name)?.inode;
      const key = `${name}:${inode ?? 0n}`;
      const known = this.#namespaces.get(key) ?? this.#namespaces.size + 1;
      this.#namespaces.set(key, known);
      return known;
    };
    return {
      pidNsId: id('pid'),
      netNsId: id('net'),
      ipcNsId: id('ipc'),
      utsNsId: id('uts'),
      timeNsId: id('time'),
      mntNsId: id('mnt'),
      userNsId: id('user'),
      cgroupNsId: id('cgroup'),
    };
  }
}

/** kcmp(2) as an order: negative, zero or positive; the kernel's answers are 0 equal, 1 less, 2 greater. */
function compare(a: number, b: number, type: number, first = 0, second = 0): number {
  const answer = syscall('kcmp', [a, b, type, first, second], `pids ${a} and ${b}`);
  return answer === 0 ? 0 : answer === 1 ? -1 : 1;
}

/** Numbers from 2 on (1 is ours), the same for processes that share the object. kcmp orders, so sorting finds them. */
function classify(processes: readonly Process[], shared: Shared): Map<Process, number> {
  const sorted = [...processes].sort((a, b) => compare(a.pid, b.pid, KCMP[shared]));
  const leaders = new Map<Process, Process>();
  sorted.forEach((member, index) => {
    const before = sorted[index - 1];
    const same = before !== undefined && compare(before.pid, member.pid, KCMP[shared]) === 0;
    leaders.set(member, same ? (leaders.get(before) ?? before) : member);
  });
  const ids = new Map<Process, number>();
  let next = 2;
  for (const member of processes) {
    const leader = leaders.get(member) ?? member;
    const id = ids.get(leader) ?? next++;
    ids.set(leader, id);
    ids.set(member, id);
  }
  return ids;
}
