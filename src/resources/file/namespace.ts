import { O_CLOEXEC } from '../../abi/fcntl.js';
import * as C from '../../abi/process.js';
import { createMessage, ImageError } from '../../image/index.js';
import { readNamespaces } from '../../kernel/procfs/ns.js';
import type { Descriptor, FileKind } from '../contract.js';
import { refusalOf } from '../description/described.js';
import { FD_TYPE } from '../description/types.js';

/** Descriptors of namespaces (/proc/PID/ns/*): kept where it is the one that its process is in, and we are. */
const LINK = /^(cgroup|ipc|mnt|net|pid|time|user|uts):\[(\d+)\]$/;

const FLAGS: Readonly<Record<string, number>> = {
  cgroup: C.CLONE_NEWCGROUP,
  ipc: C.CLONE_NEWIPC,
  mnt: C.CLONE_NEWNS,
  net: C.CLONE_NEWNET,
  pid: C.CLONE_NEWPID,
  time: C.CLONE_NEWTIME,
  user: C.CLONE_NEWUSER,
  uts: C.CLONE_NEWUTS,
};

export const namespace: FileKind = {
  name: 'namespace',
  support: 'namespaces that the tree shares with whoever saves and restores it',
  member: 'nsf',

  recognise: ({ info }) => LINK.test(info.link),

  check(descriptor, refuse) {
    if (!isOurs(descriptor))
      refuse(refusalOf(descriptor, 'it is another namespace than the one its process shares with us'));
  },

  dump({ info }, id, _taken, context) {
    const [, type = '', inode = '0'] = LINK.exec(info.link) ?? [];
    const nsf = {
      id,
      nsId: context.namespaceId?.(type, BigInt(inode)) ?? 0,
      nsCflag: FLAGS[type] ?? 0,
      flags: info.info.flags & ~O_CLOEXEC,
    };
    return createMessage('files', { type: FD_TYPE.nsf, id, nsf });
  },

  open({ id, nsf }, { tape }) {
    if (nsf === undefined) throw new ImageError('files.img', `file ${id} is no namespace`);
    const type = Object.keys(FLAGS).find((name) => FLAGS[name] === nsf.nsCflag);
    if (type === undefined)
      throw new ImageError('files.img', `file ${id}: 0x${nsf.nsCflag.toString(16)} is no kind of namespace`);
    return tape.call('open', [tape.string(`/proc/self/ns/${type}`), nsf.flags, 0]);
  },
};

function isOurs({ info, process: { pid } }: Descriptor): boolean {
  const inodes = (of: number) =>
    [...readNamespaces(of).values()].map(({ type, inode }) => `${type}:[${inode}]`);
  return inodes(pid).includes(info.link) && inodes(globalThis.process.pid).includes(info.link);
}
