import type { ImageReader } from '../image/reader.js';
import type { core_entry, fdinfo_entry, file_entry, fs_entry, mm_entry } from '../image/schema/index.js';
import type { ImageWriter } from '../image/writer.js';
import type { Descriptor as DescriptorInfo } from '../kernel/procfs/descriptors.js';
import type { Stat } from '../kernel/procfs/stat.js';
import type { Status } from '../kernel/procfs/status.js';
import type { Actor } from '../tape/play.js';
import type { Played, Result, Space, Tape } from '../tape/tape.js';
import type { DumpOptions } from './dump-options.js';
import type { FrozenThread } from './frozen-thread.js';
import type { Inquiry } from './inquiry-contract.js';
import type { SessionHooks } from './session-contract.js';
import type { DumpAnswers, Survey } from './survey-contract.js';

export type { DumpOptions } from './dump-options.js';

export type { FrozenThread };

/**
 * What the engine and the kinds of kernel objects know of each other. A resource module exports one of the objects
 * below and is listed once in registry.ts; nothing else in the project names it. Resources never import each other.
 */

/* ---------- the tree, as a dump sees it ---------- */

/** A thread. Ids without "inside" are as this process sees them. */
export interface Thread {
  readonly tid: number;
  /** The id in the innermost pid namespace, which is what images hold. */
  readonly insideTid: number;
  readonly process: Process;
  readonly isLeader: boolean;
  /** Read anew when frozen. */
  status: Status;
  /** The image of this thread, filled in by the resources. The leader's carries the process's part, `tc`. */
  readonly core: core_entry;
  /** At the freeze, unchanged; undefined before it. */
  frozen: FrozenThread | undefined;
}

export interface Process {
  readonly pid: number;
  readonly insidePid: number;
  readonly parent: Process | undefined;
  readonly children: Process[];
  /** The leader first; a zombie has only that. */
  readonly threads: Thread[];
  readonly leader: Thread;
  readonly state: 'alive' | 'stopped' | 'zombie';
  /** Read anew when frozen. */
  stat: Stat;
}

/** "pid 12 (nginx)", or "pid 12 thread 14 (nginx)". */
export function nameOf(task: Thread | Process): string {
  if ('insideTid' in task) {
    const { process } = task;
    if (task.isLeader) return nameOf(process);
    return `pid ${process.insidePid} thread ${task.insideTid} (${task.status.name})`;
  }
  return `pid ${task.insidePid} (${task.stat.comm})`;
}

/* ---------- refusals ---------- */

/** One reason why a tree cannot be saved. All are collected before anything is touched. */
export interface Refusal {
  /** "pid 12 (nginx)" */
  readonly task: string;
  /** "descriptor 7 (io_uring)" */
  readonly object: string;
  readonly reason: string;
  /** What would help, if anything. */
  readonly help?: string;
}

export type Refuse = (refusal: Refusal) => void;

/* ---------- state of tasks ---------- */

export interface DumpContext {
  readonly writer: ImageWriter;
  readonly processes: readonly Process[];
  /** Files that are open without a descriptor. */
  readonly files: FileCollector;
  /** Memory that has descriptors or file mappings: memfds. */
  readonly memfds: MemfdInodes;
  /** The id a namespace has in the image's ids, by its type (`net`) and inode; undefined where none of the tree is in it. */
  readonly namespaceId?: (type: string, inode: bigint) => number | undefined;
  readonly options: DumpOptions;
  /** The tree's network namespace where that is not the dumping process's: it stays, or is saved. */
  readonly ownNetwork?: 'stays' | 'saved' | undefined;
  /** Make sure a check that a frozen look contradicts ends the dump (the tree is let go unharmed). */
  readonly refuse: Refuse;
  /**
   * To be called before anything is changed outside of this process that its death would not put back. `entries` puts
   * on the guardian's tape what undoes it then, unless there is an inventory; every entry may fail. `take` duplicates a
   * descriptor of the tree into the guardian. Holds until it is disposed of. Absent where nobody guards.
   */
  readonly undo?: (entries: (tape: Tape, take: (descriptor: Descriptor) => Result) => void) => Disposable;
  /**
   * Play tapes on frozen threads now, all at once, for answers that decide what is asked next. Only while tasks and files
   * are read, and only where there is something to ask: each play is a stop more. What a tape takes away it has to put
   * back itself: should we die, it is played to its end. Absent where nobody can be asked.
   */
  readonly play?: (tapes: ReadonlyMap<Thread, Tape>) => ReadonlyMap<Thread, Played>;
  /**
   * What stays as it is until the tree goes on or was killed: a connection that must be silent. Released in the reverse
   * order. Whoever keeps something has said how to undo it (`undo`) before; that is no part of this.
   */
  readonly keep: (kept: Kept) => void;
  /**
   * End this attempt because of something that passes by itself, given time: an unaccepted connection, an unread
   * queue that cannot be filled again. The tree is let go and looked at again a little later, a few times, before it is
   * refused for this reason. `hold` keeps more of it from coming meanwhile, until the last attempt is over.
   */
  readonly retry: (refusal: Refusal, hold?: () => Disposable) => never;
  /** What inventory.img will say of the dump as a whole. */
  readonly inventory: Inventory;
}

export interface Inventory {
  /** A name of this dump that no other has. */
  readonly dumpCriuRunId: string;
  /** How connections were made silent: 0 iptables (or not at all), 1 nftables, 2 not by us. */
  networkLockMethod: number;
  /** Connections were left out (--tcp-close). */
  tcpClose: boolean;
}

/** Something of a dump that outlives the reading of it. */
export interface Kept {
  /** The tree will be killed: everything is written, and the inventory comes next. A throw undoes the dump. */
  commit?(): void;
  /** The tree is about to go on, also after a `commit` that came to nothing; or it has been killed. Must not throw. */
  release(outcome: 'goes on' | 'killed'): void;
}

/** A task being rebuilt, on whose tape entries are put. */
export interface RestoreTask {
  /** Ids as in the image, which are those the task has in its namespace. */
  readonly pid: number;
  readonly tid: number;
  readonly isLeader: boolean;
  readonly core: core_entry;
  /** The leader's core, which has the process's part. */
  readonly leaderCore: core_entry;
  readonly reader: ImageReader;
  readonly name: string;
}

/**
 * A piece of state of threads, or of processes (then only leaders are asked). Every function is optional.
 * All are called in the order of the registry, which is the order in which restore needs them.
 */
export interface TaskState {
  /** As in support.md: "signal actions". */
  readonly name: string;
  readonly scope: 'thread' | 'process';
  /** What support.md says is kept, and what is not. */
  readonly support: string;
  /** Before the freeze: what cannot be saved. Only reads; the task runs. */
  check?(thread: Thread, refuse: Refuse, options: DumpOptions): void;
  /** Frozen: what can be read from outside (ptrace, procfs, getters that take a pid). Fills in `thread.core`. */
  read?(thread: Thread, context: DumpContext): void;
  /** What this process asks by calls about the thread; they are made for all threads at once. */
  readonly inquiry?: Inquiry;
  /** Frozen no more, perhaps: what follows from what was read. */
  note?(thread: Thread, context: DumpContext): void;
  /**
   * Questions on the thread's own tape. One tape serves every thread (leaders apart) with the same `variant`, so the
   * entries may depend on nothing else. The answer is a reader of what one thread played, frozen no more, perhaps.
   */
  ask?(tape: Tape, thread: Thread): (played: Played, thread: Thread, context: DumpContext) => void;
  /**
   * What of the kernel's struct task_struct decides the answers of a thread to `ask`, by the paths of its members: where they
   * can be read (kernel/bpf/tasks.ts), one is asked for all threads of a process that have the same in them. With `read`,
   * which is given their values, it is read from them instead.
   */
  readonly kernel?: {
    readonly members: readonly string[];
    read?(values: readonly bigint[], thread: Thread): void;
  };
  /** Frozen: what the entries of `ask` depend on, where they are not the same for all threads. */
  variant?(thread: Thread): string;
  /** The answer is needed while the tree is frozen. */
  readonly urgent?: boolean;
  /** After every task was read and asked: whole-tree images (seccomp.img). Once per dump. */
  write?(context: DumpContext): void;
  /** Entries that rebuild it, on the task's last tape: memory and descriptors are in place, signals blocked, privileges still there. */
  restore?(task: RestoreTask, tape: Tape): void;
  /**
   * Why entry number `index` of a tape that `restore` put entries on has failed, in words; undefined where it is not
   * known, or no entry of this kind. `tid` is the task, stopped there.
   */
  explain?(task: RestoreTask, tape: Tape, index: number, tid: number): string | undefined;
  /**
   * From outside, when the task has played its last tape and waits to be let go: what only procfs or ptrace takes.
   * `tid` is its id as this process sees it.
   */
  settle?(task: RestoreTask, tid: number): void;
}

/* ---------- files ---------- */

/** A descriptor of a process of the tree, looked at from outside. */
export interface Descriptor {
  readonly process: Process;
  readonly fd: number;
  /** Link, stat and fdinfo, see kernel/procfs/descriptors.ts. */
  readonly info: DescriptorInfo;
  /** It is in flight to a descriptor of `process`, whose pid is that of this process then, and `fd` a duplicate here. */
  readonly isInFlight?: true;
}

/** Gives ids to files and sees to it that they are in files.img. */
export interface FileCollector {
  /**
   * The file behind a magic link of a process: `exe`, `cwd`, `root`, `map_files/START-END`. One id for the same path,
   * inode and flags. `flags` are those to open it with (O_RDONLY, O_RDWR, O_DIRECTORY, …). `isLate`: the tree goes on already,
   * and a file that its name does not lead to any more is refused.
   */
  addLink(process: Process, link: string, flags: number, isLate?: boolean): number;
  /** An entry that a resource makes by itself (the memfd behind a mapping); the id is unique over files.img. */
  add(entry: (id: number) => file_entry): number;
  /**
   * The id of the description behind `fd`, a descriptor of this process: one that some process of the tree has open too,
   * or that only is in flight in a socket's queue, `from`, and dumped here. `fd` is the collector's from now on.
   */
  addTaken(fd: number, from: Descriptor): number;
  /** Do this when all tables were read, still frozen: what is reached by way of descriptors only. */
  defer(step: () => void): void;
  /** All descriptors of the tree with their files' ids; complete once kinds are asked to `write`. */
  readonly found: readonly { readonly descriptor: Descriptor; readonly id: number }[];
}

/**
 * Inodes of memfds. A description (the file module) or a mapping (the memory module) names one by its id; contents,
 * size, seals, mode and owner are memory's to save, once an inode, when memory is dumped.
 */
export interface MemfdInodes {
  /**
   * The `inode_id` (memfd_file_entry) of the memfd behind `fd`, a descriptor of this process; it is duplicated, so the
   * caller keeps its own. The same inode has the same id. `link` is what readlink says of it: `/memfd:NAME (deleted)`.
   */
  add(fd: number, link: string): number;
  /** Is this the link of a memfd, one that `add` takes? */
  recognises(link: string): boolean;
}

/**
 * A kind of open file: one module, one registry line. The descriptor's duplicate `taken` is in this process
 * (pidfd_getfd(2)) and shares offset and flags with the program's: nothing that changes those may be done to it.
 */
export interface FileKind {
  /** "eventfd" */
  readonly name: string;
  /** What support.md says is kept, and what is not. */
  readonly support: string;
  /** Which member of file_entry it fills in. */
  readonly member: Exclude<keyof file_entry, `$${string}` | 'type' | 'id'>;
  /** Of kinds that share a member (sockets of IP), is it this one that restores the entry? Without it, it is. */
  restores?(entry: file_entry, reader: ImageReader): boolean;
  recognise(descriptor: Descriptor): boolean;
  check?(descriptor: Descriptor, refuse: Refuse, options: DumpOptions): void;
  /** Frozen, once per dump, before any is dumped: all descriptors of this kind (those of one description, too). */
  begin?(descriptors: readonly Descriptor[], context: DumpContext): void;
  dump(descriptor: Descriptor, id: number, taken: number, context: DumpContext): file_entry;
  /**
   * The tree runs: put on a tape of this process what is to be asked about the descriptor when it stands still. Undefined
   * where only `dump` will do.
   */
  ask?(descriptor: Descriptor, survey: Survey): DumpAnswers | undefined;
  /** Frozen, once per dump, when every description was dumped: what depends on which there are (targets of an epoll). */
  conclude?(context: DumpContext): void;
  /** Once per dump, after all descriptors, when the tree may go on already: images of its own (pipes-data.img). */
  write?(context: DumpContext): void;
  /** As `check`, for what only all descriptors of this kind of the whole tree tell (both ends of a pipe). */
  checkAll?(descriptors: readonly Descriptor[], refuse: Refuse, options: DumpOptions): void;
  /** As `check`, for what shows without any descriptor (a controlling terminal that is open nowhere). */
  checkTree?(processes: readonly Process[], refuse: Refuse, options: DumpOptions): void;
  /** Once per dump, when all descriptors were dumped and the tree is still frozen: what takes several of them. */
  gather?(context: DumpContext): void;
  /** Make the description on the holder's tape; answers its descriptor there, which the caller moves to its slot. */
  open(entry: file_entry, holder: Holder): Result;
  /**
   * Whether `open` has to wait until every process of the image exists (files below /proc/PID), or even until their
   * descriptors and threads do, all but those that have to wait for that themselves.
   */
  late?(entry: file_entry, holder: Holder): boolean | 'tables';
  /** After all descriptions are open, on the holder's tape: what joins this one to others (the targets of an epoll). */
  connect?(entry: file_entry, holder: Holder): void;
  /**
   * On the holder's `last` tape, when nothing of the restore will open, remove or close a file any more: what would
   * take notice of that (watches of inotify). The holder has only descriptions of such kinds by then, and what is held
   * by keys that begin with `watch:` or `ghost:`.
   */
  watch?(entry: file_entry, holder: Holder): void;
  /**
   * On the tape of every process that has the description as descriptor `fd`, when its `table` is complete: what such a
   * process has to do itself (the kernel remembers whose signals an epoll waits for). `pid` is its id in the image.
   */
  attach?(
    entry: file_entry,
    fd: number,
    tape: Tape,
    table: readonly fdinfo_entry[],
    holder: Holder,
    pid: number,
  ): void;
  /** What of the kind belongs to sessions. */
  readonly session?: SessionHooks;
}

/**
 * The holder is a stem that opens every description of an image, and every shared piece of memory, each at a number
 * known beforehand (its *slot*), from where the tasks take theirs by pidfd_getfd(2). It ends with the restore.
 * Keys: `file:ID` (files.img); `image:pages-1.img` (files of the image directory), `image:parent/pages-1.img` (of the
 * image it is an increment of; `parent/parent/…` and so on); `shmem:ID` (shared anonymous memory by its shmid);
 * `memfd:INODE_ID` (open for reading and writing; a description of it is opened anew through /proc/self/fd/SLOT).
 */
export interface Holder {
  readonly tape: Tape;
  /** Played on the holder when the tree is complete, last of all: removes names that only served the restore. */
  readonly last: Tape;
  /** Played on the holder after the point of no return, just before the tree goes on: what others notice. */
  readonly resume: Tape;
  readonly reader: ImageReader;
  readonly options: RestoreOptions;
  /** The slot of a key: a descriptor number of the holder that is, or will be by the end of its tape, filled. */
  slot(key: string): number;
  /** Move a fresh descriptor to the slot of `key` (dup3 and close). */
  hold(key: string, fd: Result | number): void;
  /**
   * Entries that bring a duplicate of a descriptor of this (the controller's) process into the holder. It is given
   * away: the engine closes it once the tape was played.
   */
  bring(fd: number): Result;
  /** A path that only serves the restore: should it be there when the restore has ended, however, it is removed with all below. */
  leaves(path: string): void;
  /** What this process has to do around the restore itself, outside of the tree. */
  around(acts: RestoreActs): void;
  /** State of a kind over all its entries (both ends of a pipe); made by `initial` when first asked for. */
  state<T>(owner: object, initial: () => T): T;
}

/** Acts of this process around a restore; `end` is called however it goes, even when `begin` threw, and again when it throws. */
export interface RestoreActs {
  /** Before the holder's first tape. A throw ends the restore. */
  begin?(): void;
  /** After the point of no return, before `Holder.resume` is played. */
  resume?(): void;
  end?(): void;
}

/** On one tape of a task: descriptors taken out of the holder. */
export interface Taker {
  /** A close-on-exec descriptor of the task for what lies in a slot of the holder. Whoever takes it closes it on the same tape. */
  take(key: string): Result;
}

export interface RestoreOptions {
  readonly shellJob: boolean;
  /** `--inherit-fd fd[N]:KEY`: descriptors of the caller that stand in for outside files. */
  readonly inheritFds: ReadonlyMap<string, number>;
  readonly external: readonly string[];
  /** Connect datagram sockets to named ones outside of the tree again. */
  readonly extUnixSk?: boolean;
  /** Compare page contents with their checksums. */
  readonly verify: boolean;
  /** Restore connections as closed sockets. */
  readonly tcpClose?: boolean;
  /** Refuse images with connections. */
  readonly refuseConnections?: boolean;
  /** `skip`: connections are silent by the caller's doing until the tree goes on. */
  readonly networkLock?: 'nftables' | 'skip';
}

/* ---------- memory ---------- */

export * from './inquiry-contract.js';
export * from './memory-contract.js';
export * from './session-contract.js';

export type {
  Actor,
  core_entry,
  DescriptorInfo,
  file_entry,
  fs_entry,
  mm_entry,
  Played,
  Result,
  Space,
  Tape,
};
