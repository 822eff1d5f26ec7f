import { readSync, statfsSync } from 'node:fs';
import { O_NONBLOCK, O_RDONLY, S_IFMT, S_IFREG } from '../../abi/fcntl.js';
import { scratch } from '../../kernel/memory.js';
import { readStat } from '../../kernel/procfs/stat.js';
import { syscall } from '../../kernel/syscall.js';
import type { Descriptor, DescriptorInfo } from '../contract.js';
import { openPath } from '../description/calls.js';

/** What can be read of a POSIX message queue without taking anything out (ipc/mqueue.c). */

const MQUEUE_MAGIC = 0x1980_0202;
/** FILENT_SIZE, the size that every queue says it has. */
const SIZE = 80n;

const known = new WeakMap<DescriptorInfo, boolean>();

export function isMqueue({ process, fd, info }: Descriptor): boolean {
  if (info.stat.size !== SIZE || (Number(info.stat.mode) & S_IFMT) !== S_IFREG) return false;
  const before = known.get(info);
  if (before !== undefined) return before;
  const answer = fileSystemOf(`/proc/${process.pid}/fd/${fd}`) === MQUEUE_MAGIC;
  known.set(info, answer);
  return answer;
}

function fileSystemOf(path: string): number | undefined {
  try {
    return statfsSync(path).type;
  } catch {
    // Closed meanwhile.
    return undefined;
  }
}

/** struct mq_attr, from mq_getsetattr(2). */
export interface Attributes {
  readonly maxmsg: number;
  readonly msgsize: number;
  readonly curmsgs: number;
}

/** `fd` is a descriptor of this process. */
export function attributesOf(fd: number): Attributes {
  syscall('mq_getsetattr', [fd, 0, scratch.address], 'message queue');
  const [maxmsg = 0, msgsize = 0, curmsgs = 0] = [8, 16, 24].map((at) =>
    Number(scratch.view.getBigInt64(at, true)),
  );
  return { maxmsg, msgsize, curmsgs };
}

export interface Status extends Attributes {
  /** mq_notify(3): who has asked to be told, as this process sees it, and how (SIGEV_*). */
  readonly notify: { readonly pid: number; readonly kind: number; readonly signal: number } | undefined;
}

/** Reading the file of a queue tells about it, and takes no message. `path` is a magic link of procfs. */
export function statusOf(path: string): Status {
  using opened = openPath(path, O_RDONLY | O_NONBLOCK);
  const buffer = Buffer.alloc(Number(SIZE) * 2);
  const text = buffer.toString('latin1', 0, readSync(opened.fd, buffer, 0, buffer.length, 0));
  const match = /NOTIFY:(\d+)\s+SIGNO:(\d+)\s+NOTIFY_PID:(\d+)/.exec(text);
  if (match === null)
    throw new Error(`${path} says ${JSON.stringify(text)}, which is not the status of a queue`);
  const [kind = 0, signal = 0, pid = 0] = match.slice(1).map(Number);
  const notify = pid === 0 ? undefined : { pid, kind, signal };
  return { ...attributesOf(opened.fd), notify };
}

/** The name without the slash; a link shows the path below the root of the queues' file system, or of its mount. */
export function nameOfQueue({ info }: Descriptor): string {
  const path = info.link.replace(/ \(deleted\)$/, '');
  return path.slice(path.lastIndexOf('/') + 1);
}

/** "python3" */
export function commOf(pid: number): string {
  return readStat(pid).comm;
}
