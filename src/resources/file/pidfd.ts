import { O_ACCMODE, O_CLOEXEC } from '../../abi/fcntl.js';
import { PIDFD_GET_INFO } from '../../abi/ioctl.js';
import {
  __WALL,
  P_PID,
  PIDFD_INFO_EXIT,
  PIDFD_NONBLOCK,
  PIDFD_THREAD,
  RLIMIT_CORE,
  WEXITED,
} from '../../abi/process.js';
import { SIG_SETMASK } from '../../abi/signal.js';
import { createMessage, ImageError, type pidfd_entry } from '../../image/index.js';
import { isRecord, readJson } from '../../image/json.js';
import { scratch } from '../../kernel/memory.js';
import { attempt } from '../../kernel/syscall.js';
import { cloneArguments } from '../../tape/clone.js';
import type { Branch } from '../../tape/tape.js';
import type { Descriptor, DumpContext, FileKind, Holder, Process, Tape } from '../contract.js';
import { refusalOf, refuseNow } from '../description/described.js';
import { dumpOwner, restoreOwner } from '../description/owner.js';
import { perDump, perRestore } from '../description/state.js';
import { setStatusFlags } from '../description/status-flags.js';
import { FD_TYPE } from '../description/types.js';

/**
 * pidfd_open(2): a process, a thread (PIDFD_THREAD), or one that has been waited for, whose pid reads −1 in fdinfo
 * (kernel/fork.c pidfd_show_fdinfo). Those that are the same share an inode (fs/pidfs.c), also when they are dead: then
 * the restore starts a process for each such inode, which ends as the image says. How it ended the kernel tells from
 * 6.15 on (PIDFD_GET_INFO), and CRIU's image has no field for it, so it is in a file of our own.
 */
const DEAD = -1;
const EXITS_FILE = 'stasis-pidfd.json';

export const pidfd: FileKind = {
  name: 'pidfd',
  support:
    'pidfds of processes and threads of the tree, also of zombies; of those that are gone, with how they ended (from Linux 6.15)',
  member: 'pidfd',

  recognise: ({ info }) => info.link === 'anon_inode:[pidfd]',

  check(descriptor, refuse) {
    const problem = problemOf(descriptor);
    if (problem !== undefined) refuse(refusalOf(descriptor, problem, HELP));
  },

  dump(descriptor, id, taken, context) {
    const { info } = descriptor;
    const { pid } = pidOf(descriptor);
    const nspid = pid === DEAD ? DEAD : insideOf(descriptor.process, pid)?.id;
    if (nspid === undefined)
      return refuseNow(context, descriptor, problemOf(descriptor) ?? 'it is of nobody', HELP);
    const ino = Number(info.stat.ino & 0xffff_ffffn);
    if (pid === DEAD) keepExit(ino, taken, context);
    const flags = info.info.flags & ~(O_CLOEXEC | O_ACCMODE);
    const fown = dumpOwner(descriptor, taken, context);
    return createMessage('files', { type: FD_TYPE.pidfd, id, pidfd: { id, ino, flags, nspid, fown } });
  },

  write(context) {
    const known = exits(context);
    if (known.size === 0) return;
    const text = `${JSON.stringify(Object.fromEntries(known))}\n`;
    context.writer.writeBytes(EXITS_FILE, [Buffer.from(text)]);
  },

  late({ pidfd }) {
    if (pidfd === undefined || pidfd.nspid === DEAD) return false;
    // Threads are made last.
    return (pidfd.flags & PIDFD_THREAD) === 0 ? true : 'tables';
  },

  open({ id, pidfd }, holder) {
    if (pidfd === undefined) throw new ImageError('files.img', `file ${id} is no pidfd`);
    const { tape } = holder;
    if (pidfd.nspid === DEAD) buryAll(pidfd.ino, holder);
    const fd =
      pidfd.nspid === DEAD
        ? tape.call('dup', [holder.slot(keyOf(pidfd))])
        : tape.call('pidfd_open', [pidfd.nspid, pidfd.flags & OPEN_FLAGS]);
    setStatusFlags(tape, fd, pidfd.flags);
    restoreOwner(`file:${id}`, pidfd.fown, holder);
    return fd;
  },
};

const HELP = 'let the program close it, or dump a tree that has the process in it';
const OPEN_FLAGS = PIDFD_NONBLOCK | PIDFD_THREAD;

function pidOf({ info }: Descriptor): { pid: number } {
  const { pidfd } = info.info;
  if (pidfd === undefined) throw new Error(`${info.link}: fdinfo has no Pid`);
  return pidfd;
}

/** Why it could not be opened again at a restore. */
function problemOf(descriptor: Descriptor): string | undefined {
  const { pid } = pidOf(descriptor);
  if (pid === DEAD || insideOf(descriptor.process, pid) !== undefined) return undefined;
  if (pid === 0) return 'it is of a process in another pid namespace';
  return `it is of pid ${pid}, which is not of the tree`;
}

/** A task of the tree by its id as this process sees it: its id in the tree's namespace. */
function insideOf(member: Process, pid: number): { readonly id: number } | undefined {
  let root = member;
  while (root.parent !== undefined) root = root.parent;
  for (const waiting = [root]; ; ) {
    const process = waiting.pop();
    if (process === undefined) return undefined;
    const thread = process.threads.find(({ tid }) => tid === pid);
    if (thread !== undefined) return { id: thread.insideTid };
    waiting.push(...process.children);
  }
}

/** Wait statuses by inode. */
const exits = perDump(() => new Map<number, number>());

/** struct pidfd_info, linux/pidfd.h: mask, and the wait status at its end. */
const INFO = { size: 64, exitCode: 60 };

function keepExit(ino: number, taken: number, context: DumpContext): void {
  scratch.bytes.fill(0, 0, INFO.size);
  scratch.view.setBigUint64(0, BigInt(PIDFD_INFO_EXIT), true);
  if (attempt('ioctl', [taken, PIDFD_GET_INFO, scratch.address]) < 0) return;
  const isTold = (scratch.view.getBigUint64(0, true) & BigInt(PIDFD_INFO_EXIT)) !== 0n;
  if (isTold) exits(context).set(ino, scratch.view.getInt32(INFO.exitCode, true));
}

/** Wait statuses of an image; those it does not tell are 0. */
function decodeExits(content: unknown): Map<number, number> {
  if (!isRecord(content)) throw new Error('is no object');
  return new Map(
    Object.entries(content).map(([ino, status]) => {
      if (!/^\d+$/.test(ino) || !Number.isInteger(status)) throw new Error(`has no status for ${ino}`);
      return [Number(ino), Number(status)];
    }),
  );
}

const dead = perRestore(({ reader }) =>
  reader
    .read('files')
    .map(({ pidfd }) => pidfd)
    .filter((entry) => entry?.nspid === DEAD)
    .filter((entry) => entry !== undefined),
);

const buried = perRestore(() => new Set<number>());

function keyOf({ id }: pidfd_entry): string {
  return `dead pidfd:${id}`;
}

/** A child of the holder that ends at once; a zombie can be opened still, by all that had the inode, and is waited for. */
function buryAll(ino: number, holder: Holder): void {
  if (buried(holder).has(ino)) return;
  buried(holder).add(ino);
  const { tape } = holder;
  const status = readJson(holder.reader, EXITS_FILE, decodeExits)?.get(ino) ?? 0;
  const child = tape.clone(cloneArguments(tape, 0), (task) => endAs(status, task, tape));
  for (const entry of dead(holder))
    if (entry.ino === ino)
      holder.hold(keyOf(entry), tape.call('pidfd_open', [child, entry.flags & OPEN_FLAGS]));
  tape.call('waitid', [P_PID, child, 0, WEXITED | __WALL, 0]);
}

/** A signal in the low seven bits of a wait status, or what it exited with in the next byte. */
function endAs(status: number, task: Branch, tape: Tape): void {
  const signal = status & 0x7f;
  if (signal !== 0) {
    // Alone in its group, nobody but it gets the signal; and it leaves no core file.
    task.call('setsid', []);
    task.call('prlimit64', [0, RLIMIT_CORE, tape.space(16), 0]);
    task.call('rt_sigprocmask', [SIG_SETMASK, tape.space(8), 0, 8]);
    task.call('kill', [0, signal]);
  }
  task.call('exit_group', [(status >> 8) & 0xff]);
}
