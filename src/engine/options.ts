import type { ImageReader } from '../image/index.js';
import type { DumpOptions, RestoreOptions } from '../resources/contract.js';

/** What becomes of the tree when its image is complete. */
export type Afterwards = 'kill' | 'run' | 'stop';

/** A stream that the image goes out on. */
export interface StreamPlace {
  readonly kind: 'stream';
  /** A pipe or socket, open for writing. */
  readonly fd: number;
  /** Where the other end answers; with it the tree is killed only when the other end has brought it up. */
  readonly answers: number | undefined;
  /** How long nothing may move before it is given up. */
  readonly stall_ms: number;
  /** How long the other end may take for each answer. */
  readonly ready_ms: number;
}

export interface CheckpointOptions extends DumpOptions {
  /** Root of the tree, as this process sees it. */
  readonly pid: number;
  /** Where the image goes; made when missing. The file, for an archive; what messages call it, for a stream. */
  readonly directory: string;
  /** A directory unless it says otherwise. */
  readonly to?: { readonly kind: 'archive' } | StreamPlace | undefined;
  readonly afterwards: Afterwards;
  /** How long a task may take to stop. */
  readonly timeout_ms: number;
  /** Write SHA-256 sums of all files beside the image. */
  readonly checksums: boolean;
  /** fsync before the commit. */
  readonly durable: boolean;
  /** Replace an image that is in the directory. */
  readonly overwrite: boolean;
  /** Go through the frozen window on a decoy first; a shorter pause for a longer dump. */
  readonly rehearsed: boolean;
  readonly hooks: CheckpointHooks;
}

/** Called between phases, for progress and for callers' scripts; a throw before the commit undoes the dump. */
export interface CheckpointHooks {
  readonly phase?: (name: string) => void;
  /** While the other end of a stream is waited for; a throw before the commit undoes the dump. */
  readonly interrupt?: () => void;
  /** Everything is written, nothing is committed. */
  readonly beforeCommit?: () => void;
  /** The image is complete and the tree still stands; answers what becomes of it. With this, `run` thaws only after it. */
  readonly committed?: () => Afterwards;
}

export interface Phase {
  readonly name: string;
  readonly duration_ms: number;
}

export interface CheckpointReport {
  readonly directory: string;
  /** What did not work out after the commit, if anything. */
  readonly warning: string | undefined;
  readonly processes: number;
  readonly threads: number;
  /** From the first stop asked for to the last stop. */
  readonly freezing_ms: number;
  /** From the last stop until the tree ran again or was killed. */
  readonly frozen_ms: number;
  /** How often tasks stopped for us, all tasks together. */
  readonly stops: number;
  readonly phases: readonly Phase[];
  readonly privatePages: number;
  readonly sharedPages: number;
  /** Bytes of all files of the image. */
  readonly image_bytes: number;
  readonly files: ReadonlyMap<string, number>;
}

export interface RestoreRequest extends RestoreOptions {
  /** An image directory, or an archive. */
  readonly directory: string;
  /** The image, where it has been opened already; it is closed with the restore. */
  readonly reader?: ImageReader | undefined;
  /** Accept an image that others own or may write. */
  readonly trust: boolean;
  /** Make the root a child of this process's parent. */
  readonly sibling: boolean;
  /** Namespaces to restore the tree in: `net:PATH`, or `net:PID` for that of a process. */
  readonly joins?: readonly string[];
  /** Leave the tree stopped by SIGSTOP. */
  readonly leaveStopped: boolean;
  readonly hooks: RestoreHooks;
}

export interface RestoreHooks {
  readonly phase?: (name: string) => void;
  /** The root reads its memory, which takes a while in which this process has little to do; a throw kills it. */
  readonly whileLoading?: () => void;
  /** The tree is complete and stands still; a throw kills it. `pid` is the root, as this process sees it. */
  readonly beforeResume?: (pid: number) => void;
}

export interface RestoreReport {
  /** The root, as this process sees it. */
  readonly pid: number;
  readonly processes: number;
  readonly threads: number;
  readonly phases: readonly Phase[];
  readonly total_ms: number;
  readonly pages: number;
}
