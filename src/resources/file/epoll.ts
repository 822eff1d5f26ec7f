import * as E from '../../abi/event.js';
import { F_DUPFD_CLOEXEC, FD_CLOEXEC, O_CLOEXEC } from '../../abi/fcntl.js';
import { KCMP_EPOLL_TFD, KCMP_FILE } from '../../abi/process.js';
import {
  createMessage,
  type eventpoll_file_entry,
  type eventpoll_tfd_entry,
  ImageError,
  kindOfFile,
} from '../../image/index.js';
import { scratch } from '../../kernel/memory.js';
import type { EpollTarget } from '../../kernel/procfs/fdinfo.js';
import { syscall } from '../../kernel/syscall.js';
import type { Descriptor, DumpContext, FileKind, Holder, Result, Tape } from '../contract.js';
import { refuseNow } from '../description/described.js';
import { FIRST_SLOT } from '../description/holder.js';
import { dumpOwner, restoreOwner } from '../description/owner.js';
import { perDump, perRestore } from '../description/state.js';
import { setStatusFlags } from '../description/status-flags.js';
import { FD_TYPE } from '../description/types.js';

/**
 * epoll(7). fdinfo has its targets: the number each was added by, its events and data. The number may have been closed
 * since, or mean another file by now, or be one of another process that shares the epoll; so the target's description
 * is looked for over the whole tree (kcmp(2) KCMP_EPOLL_TFD), and noted by its id in files.img, in a field that CRIU
 * writes but does not read. Lost is which edges (EPOLLET) were seen already: the program may be told once more.
 */
interface Pending {
  readonly descriptor: Descriptor;
  readonly entry: eventpoll_file_entry;
}

const pending = perDump<Pending[]>(() => []);

export const epoll: FileKind = {
  name: 'epoll',
  support:
    'targets with events and data, nested, one-shot ones that have told their event, of closed or reused numbers, also in flight; edges may be reported again',
  member: 'epfd',

  recognise: ({ info }) => info.link === 'anon_inode:[eventpoll]',

  dump(descriptor, id, taken, context) {
    const { flags, epoll: targets } = descriptor.info.info;
    const entry = createMessage('files', {
      type: FD_TYPE.epfd,
      id,
      epfd: {
        id,
        flags: flags & ~O_CLOEXEC,
        fown: dumpOwner(descriptor, taken, context),
        tfd: targets.map(targetEntry),
      },
    });
    if (entry.epfd !== undefined) pending(context).push({ descriptor, entry: entry.epfd });
    return entry;
  },

  conclude(context) {
    for (const { descriptor, entry } of pending(context)) nameTargets(descriptor, entry, context);
  },

  open({ id, epfd }, holder) {
    if (epfd === undefined) throw new ImageError('files.img', `file ${id} is no epoll`);
    const { tape } = holder;
    const fd = tape.call('epoll_create1', [E.EPOLL_CLOEXEC]);
    setStatusFlags(tape, fd, epfd.flags);
    restoreOwner(`file:${id}`, epfd.fown, holder);
    return fd;
  },

  connect({ id, epfd }, holder) {
    for (const target of disarmedFirst(epfd?.tfd ?? [])) {
      const file = fileOf(id, target, holder);
      if (ownSignals(id, file, holder)) continue;
      const slot = holder.slot(`file:${file}`);
      const isBusy = target.tfd >= FIRST_SLOT;
      addTarget(holder.tape, {
        epoll: holder.slot(`file:${id}`),
        file: slot,
        target,
        isBusy,
        flags: O_CLOEXEC,
        isAlone: true,
      });
    }
  },

  attach({ id, epfd }, fd, tape, table, holder) {
    for (const target of epfd?.tfd ?? []) {
      const file = fileOf(id, target, holder);
      if (!ownSignals(id, file, holder)) continue;
      const own = table.find((entry) => entry.id === file);
      const key = `${file} ${target.tfd}`;
      if (own === undefined || attached(holder).get(id)?.has(key) === true) continue;
      attached(holder).set(id, new Set([...(attached(holder).get(id) ?? []), key]));
      const there = table.find((entry) => entry.fd === target.tfd);
      // The one it was added by, where that still is the same file.
      const number = there?.id === file ? target.tfd : own.fd;
      const flags = ((there?.flags ?? 0) & FD_CLOEXEC) === 0 ? 0 : O_CLOEXEC;
      addTarget(tape, {
        epoll: fd,
        file: number,
        target,
        isBusy: there !== undefined,
        flags,
        isAlone: false,
      });
    }
  },
};

function targetEntry({ tfd, events, data, pos, ino, sdev }: EpollTarget) {
  return {
    id: 0,
    tfd,
    events,
    data,
    ...(sdev === undefined ? {} : { dev: sdev }),
    ...(ino === undefined ? {} : { inode: ino }),
    ...(pos === undefined ? {} : { pos }),
  };
}

/** Find each target's file among the tree's descriptors. */
function nameTargets(epoll: Descriptor, entry: eventpoll_file_entry, context: DumpContext): void {
  const seen = new Map<number, number>();
  for (const target of entry.tfd) {
    // Of several targets added by the same number, the kernel counts them in its order (struct kcmp_epoll_slot).
    const offset = seen.get(target.tfd) ?? 0;
    seen.set(target.tfd, offset + 1);
    const question = { epoll, tfd: target.tfd, offset };
    const match = findTarget(question, target.inode, candidates(context));
    if (match === undefined)
      refuseNow(
        context,
        epoll,
        `it watches a file, added as descriptor ${target.tfd}, that no process of the tree has a descriptor of`,
        'let the program remove it from the epoll, or keep a descriptor of it',
      );
    target.id = match.id;
  }
}

type Found = DumpContext['files']['found'][number];

/** Every descriptor of the tree: by process and number, and by inode. */
interface Candidates {
  readonly all: Group;
  readonly byNumber: ReadonlyMap<string, Found>;
  readonly byInode: ReadonlyMap<bigint, Group>;
}

/** Once `isSorted`, in the order of kcmp(2). */
interface Group {
  readonly members: Found[];
  isSorted: boolean;
}

const index = perDump(() => new Map<'candidates', Candidates>());

function candidates(context: DumpContext): Candidates {
  const known = index(context).get('candidates');
  if (known !== undefined) return known;
  const byInode = new Map<bigint, Group>();
  const byNumber = new Map<string, Found>();
  for (const found of context.files.found) {
    const { process, fd, info } = found.descriptor;
    byNumber.set(`${process.pid} ${fd}`, found);
    const group = byInode.get(info.stat.ino);
    if (group === undefined) byInode.set(info.stat.ino, { members: [found], isSorted: false });
    else group.members.push(found);
  }
  const all = { members: [...context.files.found], isSorted: false };
  const made = { all, byNumber, byInode };
  index(context).set('candidates', made);
  return made;
}

interface Question {
  readonly epoll: Descriptor;
  readonly tfd: number;
  readonly offset: number;
}

/** Most are still where they were added; else by halves, for all eventfds have one inode, and there may be thousands. */
function findTarget(question: Question, inode: bigint, known: Candidates): Found | undefined {
  const { epoll, tfd } = question;
  const same = known.byNumber.get(`${epoll.process.pid} ${tfd}`);
  if (same !== undefined && compareTarget(question, same.descriptor) === EQUAL) return same;
  const group = known.byInode.get(inode);
  return (group === undefined ? undefined : search(question, group)) ?? search(question, known.all);
}

/** What kcmp(2) answers. */
const EQUAL = 0;
const LESS = 1;

function search(question: Question, group: Group): Found | undefined {
  if (!group.isSorted) group.members.sort((a, b) => compareFiles(a.descriptor, b.descriptor));
  group.isSorted = true;
  const { members } = group;
  for (let from = 0, to = members.length; from < to; ) {
    const middle = (from + to) >> 1;
    const member = members[middle];
    if (member === undefined) return undefined;
    const answer = compareTarget(question, member.descriptor);
    if (answer === EQUAL) return member;
    if (answer === LESS) from = middle + 1;
    else to = middle;
  }
  return undefined;
}

function compareFiles(a: Descriptor, b: Descriptor): number {
  const answer = syscall('kcmp', [a.process.pid, b.process.pid, KCMP_FILE, a.fd, b.fd], 'two descriptors');
  return answer === EQUAL ? 0 : answer === LESS ? -1 : 1;
}

/** Is the description before, equal to, or behind the target, in the order that KCMP_FILE has too (kernel/kcmp.c)? */
function compareTarget({ epoll, tfd, offset }: Question, { process, fd }: Descriptor): number {
  const { view, address } = scratch;
  view.setUint32(0, epoll.fd, true);
  view.setUint32(4, tfd, true);
  view.setUint32(8, offset, true);
  return syscall(
    'kcmp',
    [process.pid, epoll.process.pid, KCMP_EPOLL_TFD, fd, address],
    'a target of an epoll',
  );
}

/** Descriptors of the task that adds a target. */
interface Addition {
  readonly epoll: number;
  readonly file: number;
  readonly target: eventpoll_tfd_entry;
  /** Whether something may have the number by which the target was added, and its close-on-exec flag. */
  readonly isBusy: boolean;
  readonly flags: number;
  /** No target of the epoll is there yet but disarmed ones. */
  readonly isAlone: boolean;
}

/**
 * The target is moved to the number it was added by, for that one call. Whatever has that number there gives way, and
 * comes back.
 */
function addTarget(tape: Tape, { epoll, file, target, isBusy, flags, isAlone }: Addition): void {
  const { tfd } = target;
  const add = (from: number | Result) => {
    if (isAlone && isDisarmed(target)) addDisarmed(tape, from, target);
    else tape.call('epoll_ctl', [from, E.EPOLL_CTL_ADD, tfd, eventOf(target, tape)]);
  };
  if (file === tfd) {
    add(epoll);
    return;
  }
  const saved = isBusy ? tape.call('fcntl', [tfd, F_DUPFD_CLOEXEC, 0], 'any') : undefined;
  tape.call('dup3', [file, tfd, O_CLOEXEC]);
  // The epoll's own number may be the one that gave way.
  add(epoll === tfd && saved !== undefined ? saved : epoll);
  tape.call('close', [tfd]);
  if (saved === undefined) return;
  tape.call('dup3', [saved, tfd, flags], 'any');
  tape.call('close', [saved], 'any');
}

/** What stays of the events of a one-shot target that has told its event (fs/eventpoll.c EP_PRIVATE_BITS). */
const PRIVATE_BITS = (E.EPOLLWAKEUP | E.EPOLLONESHOT | E.EPOLLET | E.EPOLLEXCLUSIVE) >>> 0;

/** All that a file can be ready for, but errors, which epoll_ctl(2) adds by itself. */
const ANYTHING = E.EPOLLIN | E.EPOLLPRI | E.EPOLLOUT | E.EPOLLRDNORM | E.EPOLLWRNORM | E.EPOLLRDHUP;

function isDisarmed({ events }: eventpoll_tfd_entry): boolean {
  return (events & E.EPOLLONESHOT) !== 0 && (events & ~PRIVATE_BITS) === 0;
}

/** While there are only such, nobody else's event is taken by the wait that disarms one. */
function disarmedFirst(targets: readonly eventpoll_tfd_entry[]): eventpoll_tfd_entry[] {
  return [...targets.filter(isDisarmed), ...targets.filter((target) => !isDisarmed(target))];
}

/**
 * A target is disarmed only by telling an event, so it is asked for anything the file is ready for right now. Where that
 * is nothing, it is left waiting for an error: the one event that the program may be told without having asked again.
 */
function addDisarmed(tape: Tape, epoll: number | Result, target: eventpoll_tfd_entry): void {
  const { tfd, events } = target;
  const anything = eventOf({ ...target, events: (events | ANYTHING) >>> 0 }, tape);
  tape.call('epoll_ctl', [epoll, E.EPOLL_CTL_ADD, tfd, anything]);
  const nothing = tape.label();
  const done = tape.label();
  tape.jump('epoll_wait', [epoll, tape.space(16), 1, 0], nothing);
  tape.jump('sched_yield', [], done);
  tape.place(nothing);
  tape.call('epoll_ctl', [epoll, E.EPOLL_CTL_MOD, tfd, eventOf(target, tape)]);
  tape.place(done);
}

function fileOf(epoll: number, { id, tfd }: eventpoll_tfd_entry, holder: Holder): number {
  return id === 0 ? fileOfNumber(epoll, tfd, holder) : id;
}

/** Targets that a process has added, by the epoll's id. */
const attached = perRestore(() => new Map<number, ReadonlySet<string>>());

/**
 * Who adds a signalfd is whose signals the epoll then hears of (fs/signalfd.c signalfd_poll waits at the caller's): so
 * that has to be a process of the tree, the first one that has both.
 */
function ownSignals(epoll: number, file: number, holder: Holder): boolean {
  return (
    signalfds(holder).has(file) &&
    tables(holder).some(
      (table) => table.some(({ id }) => id === epoll) && table.some(({ id }) => id === file),
    )
  );
}

const signalfds = perRestore(
  ({ reader }) => new Set(reader.read('files').flatMap(({ id, sgfd }) => (sgfd === undefined ? [] : [id]))),
);

/** Images of CRIU say only the number: it is that of a table that has the epoll. */
function fileOfNumber(epoll: number, tfd: number, holder: Holder): number {
  for (const table of tables(holder)) {
    if (!table.some(({ id }) => id === epoll)) continue;
    const target = table.find(({ fd }) => fd === tfd);
    if (target !== undefined) return target.id;
  }
  throw new ImageError(
    'files.img',
    `epoll ${epoll}: no process that has it has a descriptor ${tfd}, its target`,
  );
}

const tables = perRestore(({ reader }) =>
  reader
    .list()
    .map((name) => kindOfFile(name))
    .filter((found) => found?.kind === 'fdinfo')
    .map((found) => reader.read('fdinfo', found?.id ?? 0)),
);

/** struct epoll_event, packed on x86-64: events, then data. */
function eventOf({ events, data }: eventpoll_tfd_entry, tape: Tape) {
  const bytes = new Uint8Array(12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, events, true);
  view.setBigUint64(4, data, true);
  return tape.space(bytes);
}
