import { ERRNO } from '../../abi/errno.js';
import {
  AT_FDCWD,
  O_CLOEXEC,
  O_CREAT,
  O_EXCL,
  O_NONBLOCK,
  O_RDONLY,
  O_RDWR,
  SEEK_SET,
} from '../../abi/fcntl.js';
import { createMessage, encodeName, ImageError } from '../../image/index.js';
import { SyscallError } from '../../kernel/errors.js';
import { OwnedFd } from '../../kernel/fd.js';
import { scratch } from '../../kernel/memory.js';
import { attempt } from '../../kernel/syscall.js';
import {
  type Descriptor,
  type DumpContext,
  type FileKind,
  type file_entry,
  type Holder,
  nameOf,
  type Process,
  type Refuse,
  type Result,
} from '../contract.js';
import { pathBytes, takeIfOpen } from '../description/calls.js';
import { objectOf, refusalOf, refuseNow } from '../description/described.js';
import { outsiderOf } from '../description/outsider.js';
import { dumpOwner, restoreOwner } from '../description/owner.js';
import { perDump, perRestore } from '../description/state.js';
import { treeOf } from '../description/tree.js';
import { FD_TYPE } from '../description/types.js';
import { encodeMqueues, MQUEUE_FILE, type Queue, type QueueFile, readMqueues } from './mqueue-codec.js';
import { MESSAGES_MAX, ROOM_MAX, readerOf, readMessages } from './mqueue-messages.js';
import { askAgain, notificationOf, notifyProblem } from './mqueue-notify.js';
import { attributesOf, commOf, isMqueue, nameOfQueue, type Status, statusOf } from './mqueue-state.js';

/**
 * POSIX message queues (mq_overview(7)): a name in the IPC namespace, like a file. One that is there at restore is used
 * as it is, if it is as it was; one that is not is made, with its messages. A queue whose name was removed is always made.
 */
interface Saved {
  readonly queues: Queue[];
  readonly files: QueueFile[];
  /** Numbers of queues by their inodes. */
  readonly inodes: Map<string, number>;
  /** Who has asked to be told of messages. */
  readonly requests: {
    readonly descriptor: Descriptor;
    readonly owner: Process;
    readonly queue: number;
  }[];
}

const saved = perDump<Saved>(() => ({ queues: [], files: [], inodes: new Map(), requests: [] }));

export const mqueue: FileKind = {
  name: 'message queue',
  support:
    'POSIX message queues: name or none, limits, mode, owner, messages with their priorities, requests to be told of messages (mq_notify; signals from Linux 6.9, with BTF); refused: such requests by SIGEV_THREAD or of a queue that holds messages, messages that processes outside of the tree could miss',
  member: 'ext',

  recognise: isMqueue,

  restores: ({ id }, reader) => readMqueues(reader)?.files.some((file) => file.id === id) === true,

  check(descriptor, refuse) {
    using taken = takeIfOpen(descriptor.process.pid, descriptor.fd, objectOf(descriptor));
    if (taken === undefined) return;
    const status = statusOf(`/proc/self/fd/${taken.fd}`);
    checkQueue(descriptor, status, refuse);
    const problem = notifyProblem(taken.fd, status, pidsOf(treeOf(descriptor.process)));
    if (problem !== undefined) refuse(refusalOf(descriptor, problem));
  },

  dump(descriptor, id, taken, context) {
    const { info } = descriptor;
    const path = info.link.lastIndexOf('/') > 0 && info.stat.nlink > 0n ? { path: info.link } : {};
    saved(context).files.push({
      id,
      queue: queueNumber(descriptor, taken, context),
      flags: info.info.flags & ~O_CLOEXEC,
      pos: Number(info.info.pos),
      ...path,
    });
    const ext = { id, fown: dumpOwner(descriptor, taken, context) };
    return createMessage('files', { type: FD_TYPE.ext, id, ext });
  },

  /** Whoever asks has a descriptor, for the last close takes it back; but another may fill their table. */
  conclude(context) {
    const { requests, files } = saved(context);
    for (const { descriptor, owner, queue } of requests) {
      const ids = new Set(files.filter((file) => file.queue === queue).map(({ id }) => id));
      if (!context.files.found.some((each) => each.descriptor.process === owner && ids.has(each.id)))
        refuseNow(
          context,
          descriptor,
          `${nameOf(owner)} has asked to be told of its next message (mq_notify), and shares its descriptors with another process`,
        );
    }
  },

  write(context) {
    const { queues, files } = saved(context);
    if (queues.length > 0) context.writer.writeBytes(MQUEUE_FILE, [encodeMqueues({ queues, files })]);
  },

  open(entry, holder) {
    const file = fileOf(entry, holder);
    const key = queueKey(file.queue, holder);
    const { tape } = holder;
    const path = file.path === undefined ? `/proc/self/fd/${holder.slot(key)}` : file.path;
    const fd = tape.call('openat', [AT_FDCWD, tape.string(encodeName(path)), file.flags | O_CLOEXEC, 0]);
    if (file.pos !== 0) tape.call('lseek', [fd, file.pos, SEEK_SET]);
    restoreOwner(`file:${entry.id}`, entry.ext?.fown, holder);
    return fd;
  },

  attach(entry, fd, tape, _table, holder, pid) {
    const { files, queues } = image(holder);
    const queue = files.find(({ id }) => id === entry.id)?.queue;
    if (queue === undefined) return;
    const notify = queues[queue]?.notify;
    // By any of its descriptors.
    if (notify?.pid !== pid || told(holder).has(queue)) return;
    told(holder).add(queue);
    askAgain(tape, fd, notify);
  },
};

function pidsOf(processes: readonly Process[]): ReadonlySet<number> {
  return new Set(processes.map(({ pid }) => pid));
}

function checkQueue(descriptor: Descriptor, status: Status, refuse: Refuse): void {
  const { curmsgs, msgsize } = status;
  if (curmsgs === 0) return;
  if (curmsgs > MESSAGES_MAX || curmsgs * msgsize > ROOM_MAX)
    refuse(
      refusalOf(descriptor, `it holds ${curmsgs} messages of up to ${msgsize} bytes, which is too much`),
    );
  const { process } = descriptor;
  if (process.state === 'stopped' && readerOf(process, treeOf(process)) === undefined)
    refuse(
      refusalOf(
        descriptor,
        'it holds messages, which have to be taken out to be read and put back, and stopped processes that are let go half-way would not do that',
        'let one of the tree go on (SIGCONT)',
      ),
    );
  const outsider = outsiderOf(descriptor);
  if (outsider !== undefined)
    refuse(
      refusalOf(
        descriptor,
        `it holds messages, which have to be taken out to be read, and pid ${outsider} (${commOf(outsider)}) outside of the tree has it open too`,
        'empty the queue, or end that process',
      ),
    );
}

function queueNumber(descriptor: Descriptor, taken: number, context: DumpContext): number {
  const { queues, inodes } = saved(context);
  const { stat } = descriptor.info;
  const key = `${stat.dev}:${stat.ino}`;
  const known = inodes.get(key);
  if (known !== undefined) return known;
  const status = statusOf(`/proc/self/fd/${taken}`);
  const { maxmsg, msgsize, curmsgs, notify } = status;
  const problem = notifyProblem(taken, status, pidsOf(context.processes));
  if (problem !== undefined) refuseNow(context, descriptor, problem);
  const owner = context.processes.find(({ pid }) => pid === notify?.pid);
  if (notify !== undefined && owner !== undefined)
    saved(context).requests.push({ descriptor, owner, queue: queues.length });
  queues.push({
    name: nameOfQueue(descriptor),
    deleted: stat.nlink === 0n,
    mode: Number(stat.mode) & 0o7777,
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    maxmsg,
    msgsize,
    messages: curmsgs === 0 ? [] : readMessages(descriptor, status, context),
    ...(notify === undefined || owner === undefined
      ? {}
      : { notify: notificationOf(taken, notify, owner.insidePid) }),
  });
  inodes.set(key, queues.length - 1);
  return queues.length - 1;
}

/* ---------- restore ---------- */

const image = perRestore(({ reader }) => readMqueues(reader));
const held = perRestore(() => new Set<number>());
const told = perRestore(() => new Set<number>());

function fileOf({ id }: file_entry, holder: Holder): QueueFile {
  const file = image(holder).files.find((each) => each.id === id);
  if (file === undefined)
    throw new ImageError(
      'files.img',
      `file ${id} is an external file of a plugin of CRIU's, which Stasis does not know`,
    );
  return file;
}

/** The slot of a queue's first description, for reading and writing; the others are opened through it. */
function queueKey(number: number, holder: Holder): string {
  const key = `mqueue:${number}`;
  if (held(holder).has(number)) return key;
  held(holder).add(number);
  const queue = image(holder).queues[number];
  if (queue === undefined) throw new ImageError(MQUEUE_FILE, `there is no queue ${number}`);
  const existing = existingQueue(queue.name);
  if (existing !== undefined && !queue.deleted) useExisting(queue, existing, key, holder);
  else make(queue, existing === undefined ? queue.name : `${queue.name}.stasis.${number}`, key, holder);
  return key;
}

function useExisting(queue: Queue, now: Status, key: string, holder: Holder): void {
  const { name, maxmsg, msgsize, messages } = queue;
  if (now.maxmsg !== maxmsg || now.msgsize !== msgsize || now.curmsgs !== messages.length)
    throw new ChangedQueueError(
      `message queue /${name} holds ${now.curmsgs} of ${now.maxmsg} messages of ${now.msgsize} bytes, in the image ${messages.length} of ${maxmsg} of ${msgsize}: it was changed since`,
    );
  const { tape } = holder;
  const path = tape.string(encodeName(name));
  holder.hold(key, tape.call('mq_open', [path, O_RDWR | O_NONBLOCK | O_CLOEXEC, 0, 0]));
}

/** A queue that is there, but not as it was. */
export class ChangedQueueError extends Error {
  override readonly name = 'ChangedQueueError';
  readonly code = 'EFILE';
}

function make(queue: Queue, name: string, key: string, holder: Holder): void {
  const { tape } = holder;
  const path = tape.string(encodeName(name));
  const attributes = new Uint8Array(64);
  const view = new DataView(attributes.buffer);
  view.setBigInt64(8, BigInt(queue.maxmsg), true);
  view.setBigInt64(16, BigInt(queue.msgsize), true);
  const flags = O_CREAT | O_EXCL | O_RDWR | O_NONBLOCK | O_CLOEXEC;
  const fd: Result = tape.call('mq_open', [path, flags, queue.mode, tape.space(attributes)]);
  for (const { priority, data } of queue.messages)
    tape.call('mq_timedsend', [fd, tape.space(data), data.length, priority, 0]);
  tape.call('fchown', [fd, queue.uid, queue.gid]);
  tape.call('fchmod', [fd, queue.mode]);
  if (queue.deleted) tape.call('mq_unlink', [path]);
  holder.hold(key, fd);
}

/** Of the name, in this process's namespace; undefined where there is none. */
function existingQueue(name: string): Status | undefined {
  const bytes = pathBytes(name);
  scratch.bytes.set(bytes);
  scratch.bytes[bytes.length] = 0;
  const fd = attempt('mq_open', [scratch.address, O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0, 0]);
  if (fd === -ERRNO.ENOENT) return undefined;
  if (fd < 0) throw new SyscallError('mq_open', -fd, `/${name}`);
  using opened = new OwnedFd(fd);
  return { ...attributesOf(opened.fd), notify: undefined };
}
