import type { core_entry, file_entry, fs_entry, mm_entry } from '../image/schema/index.js';
import type { ImageReader } from '../image/reader.js';
import type { ImageWriter } from '../image/writer.js';
import type { Stat } from '../kernel/procfs/stat.js';
import type { Status } from '../kernel/procfs/status.js';
import type { Descriptor as DescriptorInfo } from '../kernel/procfs/descriptors.js';
import type { Registers } from '../kernel/registers.js';
import type { Actor } from '../tape/play.js';
import type { Played, Result, Tape } from '../tape/tape.js';

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

export interface FrozenThread {
  registers: Registers;
  readonly mask: bigint;
  readonly xstate: Uint8Array;
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
  readonly options: DumpOptions;
  /** Make sure a check that a frozen look contradicts ends the dump (the tree is let go unharmed). */
  readonly refuse: Refuse;
}

/** Options that resources look at; names are those of `criu dump`. */
export interface DumpOptions {
  readonly shellJob: boolean;
  readonly linkRemap: boolean;
  /** Largest deleted file that is copied into the image, in bytes. */
  readonly ghostLimit: number;
  /** `file[mnt_id:inode]`, `tty[rdev:dev]`, … */
  readonly external: readonly string[];
  readonly leaveRunning: boolean;
  readonly fileLocks: boolean;
  readonly tcpEstablished: boolean;
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
  /** Frozen: questions on the thread's own tape; the answer is a reader of what was played. */
  ask?(thread: Thread, tape: Tape, context: DumpContext): (played: Played) => void;
  /** After every task was read and asked: whole-tree images (seccomp.img). Once per dump. */
  write?(context: DumpContext): void;
  /** Entries that rebuild it, on the task's last tape: memory and descriptors are in place, signals blocked, privileges still there. */
  restore?(task: RestoreTask, tape: Tape): void;
}

/* ---------- files ---------- */

/** A descriptor of a process of the tree, looked at from outside. */
export interface Descriptor {
  readonly process: Process;
  readonly fd: number;
  /** Link, stat and fdinfo, see kernel/procfs/descriptors.ts. */
  readonly info: DescriptorInfo;
}

/** Gives ids to files and sees to it that they are in files.img. */
export interface FileCollector {
  /**
   * The file behind a magic link of a process: `exe`, `cwd`, `root`, `map_files/START-END`. One id for the same path,
   * inode and flags. `flags` are those to open it with (O_RDONLY, O_RDWR, O_DIRECTORY, …).
   */
  addLink(process: Process, link: string, flags: number): number;
  /** An entry that a resource makes by itself (the memfd behind a mapping); the id is unique over files.img. */
  add(entry: (id: number) => file_entry): number;
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
  recognise(descriptor: Descriptor): boolean;
  check?(descriptor: Descriptor, refuse: Refuse, options: DumpOptions): void;
  dump(descriptor: Descriptor, id: number, taken: number, context: DumpContext): file_entry;
  /** Once per dump, after all descriptors: images of its own (pipes-data.img). */
  write?(context: DumpContext): void;
  /** Make the description on the holder's tape; answers its descriptor there, which the caller moves to its slot. */
  open(entry: file_entry, holder: Holder): Result;
}

/**
 * The holder is a stem that opens every description of an image, and every shared piece of memory, each at a number
 * known beforehand (its *slot*), from where the tasks take theirs by pidfd_getfd(2). It ends with the restore.
 * Keys: `file:ID` (files.img), `image:pages-1.img` (files of the image directory), `shmem:ID`.
 */
export interface Holder {
  readonly tape: Tape;
  readonly reader: ImageReader;
  readonly options: RestoreOptions;
  /** The slot of a key: a descriptor number of the holder that is, or will be by the end of its tape, filled. */
  slot(key: string): number;
  /** Move a fresh descriptor to the slot of `key` (dup3 and close). */
  hold(key: string, fd: Result): void;
  /** Entries that bring a duplicate of a descriptor of this (the controller's) process into the holder. */
  bring(fd: number): Result;
  /** State of a kind over all its entries (both ends of a pipe); made by `initial` when first asked for. */
  state<T>(owner: object, initial: () => T): T;
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
  /** Compare page contents with their checksums. */
  readonly verify: boolean;
}

/* ---------- memory ---------- */

/** What an image says of one process, read once. */
export interface ProcessImage {
  readonly pid: number;
  readonly parent: ProcessImage | undefined;
  readonly children: ProcessImage[];
  readonly core: core_entry;
  /** Undefined for a zombie. */
  readonly mm: mm_entry | undefined;
  readonly reader: ImageReader;
  readonly name: string;
}

/** The one module for memory; see resources/memory/. */
export interface MemoryResource {
  check(process: Process, refuse: Refuse, options: DumpOptions): void;
  /**
   * Frozen: writes mm-P, pagemap-P, pages-N, pagemap-shmem-*, memfd.img. The tree's threads are stopped, and `actors`
   * can play tapes.
   */
  dump(context: DumpContext, tasks: ReadonlyMap<Process, Actor>): MemoryReport;
  /** Restore, on the holder's tape: shared anonymous memory, memfds, SysV segments, with their contents. */
  hold(images: readonly ProcessImage[], holder: Holder): void;
  /**
   * Restore, on a process's first tape: all that is mapped but the workspace goes, private memory is mapped at its
   * final place, writable, and filled. A child was forked off `image.parent` after that was done there, so what both
   * have in common is kept, copy-on-write sharing with it.
   */
  load(image: ProcessImage, tape: Tape, taker: Taker, workspace: AddressRange): void;
  /**
   * Restore, after all children were forked: shared and special mappings, vDSO, final protections, madvise, mlock,
   * PR_SET_MM_MAP, exe link, dumpable, THP flag.
   */
  finish(image: ProcessImage, tape: Tape, taker: Taker, workspace: AddressRange): void;
}

export interface AddressRange {
  readonly address: bigint;
  readonly size: bigint;
}

export interface MemoryReport {
  /** Pages written to pages-*.img, of private and of shared memory. */
  readonly privatePages: number;
  readonly sharedPages: number;
}

export type { Actor, DescriptorInfo, file_entry, fs_entry, mm_entry, Played, Result, Tape };
