import type { ImageReader } from '../image/reader.js';
import type { core_entry, mm_entry } from '../image/schema/index.js';
import type { Actor } from '../tape/play.js';
import type { Played, Tape } from '../tape/tape.js';
import type { DumpContext, DumpOptions, Holder, Process, Refuse, Taker } from './contract.js';

/** What the engine and the one module for memory know of each other. */

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

/** What support.md says of a kind of memory. */
export interface MemoryKind {
  readonly name: string;
  readonly support: string;
}

/** The one module for memory; see resources/memory/. */
export interface MemoryResource {
  readonly kinds: readonly MemoryKind[];
  check(process: Process, refuse: Refuse, options: DumpOptions): void;
  /**
   * Questions on the tape of a process's leader, the same for all processes of one `variant`. The answer is read while
   * the tree is frozen.
   */
  ask(tape: Tape, process: Process): (played: Played, process: Process) => void;
  variant(process: Process): string;
  /**
   * Frozen: writes mm-P, pagemap-P, pages-N, pagemap-shmem-*, memfd.img. The tree's threads are stopped, and `actors`
   * can play tapes. `copyOf` is a stopped fork of the process, made in this freeze, where there is one: what can be
   * read out of that is left to `finish`, when the process may run again.
   */
  dump(
    context: DumpContext,
    tasks: ReadonlyMap<Process, Actor>,
    copyOf: (process: Process) => number | undefined,
  ): PendingMemory;
  /**
   * Restore, on the holder's tape: the `image:`, `shmem:` and `memfd:` slots, with the contents of shared memory; SysV
   * segments. Before the files of kind memfd are opened. It maps what it fills from HOLDER_ARENA on for a moment.
   */
  hold(images: readonly ProcessImage[], holder: Holder): void;
  /**
   * Restore, on the same tape, after all files were opened: files that are mapped with another access than their
   * entry in files.img says (in CRIU's images that is always O_RDONLY).
   */
  holdMapped(images: readonly ProcessImage[], holder: Holder): void;
  /**
   * The stem's own vDSO and its data, which a restored process keeps. Where they lie is random, so operands are
   * deferred: the engine calls `learn` with the stem's pid before the tape of `load` is assembled.
   */
  stemMaps(): StemMaps;
  /**
   * Restore, on a process's first tape: all that is mapped but the workspace goes, private memory is mapped at its
   * final place, writable, and filled. `origin` is whose memory it begins with: the stem's, or that of the process it
   * was forked off (its creator, not always its parent) after `load` there, and what both have in common is kept,
   * copy-on-write sharing with it.
   * The last VDSO_ROOM bytes of the workspace are this module's: the vDSO lies there until `finish`, so that every
   * child inherits it at a known place.
   */
  load(
    image: ProcessImage,
    tape: Tape,
    taker: Taker,
    workspace: AddressRange,
    origin: StemMaps | ProcessImage | undefined,
  ): void;
  /**
   * Restore, after all children were forked: shared and special mappings, vDSO, final protections, madvise, mlock,
   * PR_SET_MM_MAP, exe link, THP flag. On a later tape than `load`, or the same one for processes without children.
   */
  finish(image: ProcessImage, tape: Tape, taker: Taker, workspace: AddressRange): void;
  /** Restore, on the process's last tape, after its credentials (a change of uid sets it): the dumpable flag. */
  last(image: ProcessImage, tape: Tape): void;
  /**
   * Restore, on the holder's tape again, after every process has played what `finish` says: seals of memfds, and
   * the removal of SysV segments that were marked for it.
   */
  seal(images: readonly ProcessImage[], holder: Holder): void;
}

/** Bytes at the end of a workspace that no slice may use; see MemoryResource.load. */
export const VDSO_ROOM = 0x10000;

/** Addresses from here up to twice as many are free in the holder: its workspace lies below or above. */
export const HOLDER_ARENA = 0x2000_0000_0000n;

export interface StemMaps {
  /** Look where the maps of this stem are. */
  learn(pid: number): void;
}

export interface AddressRange {
  readonly address: bigint;
  readonly size: bigint;
}

export interface PendingMemory {
  /** Write what is left, out of the copies. */
  finish(): MemoryReport;
}

export interface MemoryReport {
  /** Pages written to pages-*.img, of private and of shared memory. */
  readonly privatePages: number;
  readonly sharedPages: number;
}
