import type { Refusal } from '../resources/contract.js';
import type { FeatureState } from './host/features.js';

/** What an engine answers; `--json` of the commands prints exactly these objects. Units are in the names. */

export interface PhaseTime {
  readonly name: string;
  readonly duration_ms: number;
}

export interface CheckpointResult {
  readonly directory: string;
  readonly pid: number;
  readonly afterwards: 'kill' | 'run' | 'stop';
  readonly processes: number;
  readonly threads: number;
  /** From the first stop asked for to the last stop. */
  readonly freezing_ms: number;
  /** From the last stop until the tree ran again, or was killed. */
  readonly frozen_ms: number;
  readonly total_ms: number;
  /** How often tasks stopped for the engine, all tasks together. */
  readonly stops: number;
  readonly phases: readonly PhaseTime[];
  /** Of 4096 bytes, as written. */
  readonly private_pages: number;
  readonly shared_pages: number;
  readonly image_bytes: number;
  /** Bytes by name. */
  readonly files: Readonly<Record<string, number>>;
}

export interface RestoreResult {
  readonly directory: string;
  /** The root, as the caller sees it. */
  readonly pid: number;
  readonly detached: boolean;
  readonly processes: number;
  readonly threads: number;
  readonly pages: number;
  readonly total_ms: number;
  readonly phases: readonly PhaseTime[];
}

/** How a process ended. */
export type ExitStatus =
  | { readonly kind: 'exited'; readonly status: number }
  | { readonly kind: 'killed'; readonly signal: number; readonly core_dumped: boolean };

export interface InspectedMemory {
  /** Bytes of mappings: anonymous private, shared (anonymous, memfd, System V), of files. */
  readonly private_bytes: number;
  readonly shared_bytes: number;
  readonly file_bytes: number;
  /** Bytes of pages that the image holds, that its parent image holds, that are loaded on demand. */
  readonly image_bytes: number;
  readonly parent_bytes: number;
  readonly lazy_bytes: number;
  readonly mappings: number;
}

export interface InspectedProcess {
  readonly pid: number;
  readonly ppid: number;
  readonly pgid: number;
  readonly sid: number;
  readonly comm: string;
  readonly state: 'alive' | 'stopped' | 'zombie';
  readonly threads: readonly number[];
  /** Null for a zombie. */
  readonly memory: InspectedMemory | null;
  /** Descriptors by kind of file. */
  readonly descriptors: Readonly<Record<string, number>>;
}

export interface InspectedFile {
  readonly name: string;
  readonly bytes: number;
  readonly kind: string;
  readonly records: number | null;
}

export interface InspectProblem {
  readonly file: string;
  readonly offset_bytes: number | null;
  readonly message: string;
}

export interface InspectResult {
  readonly directory: string;
  readonly version: number;
  readonly parent: string | null;
  readonly image_bytes: number;
  readonly pages_bytes: number;
  /** Contents of shared memory, counted once. */
  readonly shared_memory_bytes: number;
  readonly processes: readonly InspectedProcess[];
  /** Largest first. */
  readonly files: readonly InspectedFile[];
  /** Whether there are checksums beside the image. */
  readonly checksums: boolean;
  /** With `verify`: all that is wrong; null without. */
  readonly problems: readonly InspectProblem[] | null;
}

export interface PlannedTape {
  readonly phase: string;
  /** Whose tape it is and what for. */
  readonly title: string;
  readonly calls: number;
  /** One entry a line, as strace would print it. */
  readonly listing: string;
}

export interface PlanResult {
  readonly directory: string;
  readonly processes: number;
  readonly tapes: readonly PlannedTape[];
}

export interface UnlockResult {
  readonly directory: string | null;
  readonly pid: number | null;
  /** Of a tree that was left stopped and about which was decided now; 0 otherwise. */
  readonly processes: number;
  /** That go on with it. */
  readonly connections: number;
  /** Tables of nftables that are gone now; none where nothing was locked. */
  readonly tables: readonly string[];
}

/** Connections that are silent until an image is restored. */
export interface LastingLock {
  /** Of nftables, in the family inet. */
  readonly table: string;
  /** The image, or what a stream was called; null where another program's table does not tell. */
  readonly directory: string | null;
  /** The root of the tree that was saved, as its checkpoint saw it; null likewise. */
  readonly pid: number | null;
  /** That tree is still there, stopped: the other end of a stream did not say whether it runs there. */
  readonly left_stopped: boolean;
  /** A path that leads to the network namespace it is in; null for that of the engine. */
  readonly network: string | null;
}

export interface CheckResult {
  /** Nothing that is required is missing, and the tree, if one was named, can be saved. */
  readonly ok: boolean;
  readonly host: readonly FeatureState[];
  readonly pid: number | null;
  /** Every reason why the tree could not be saved; null without a pid. */
  readonly refusals: readonly Refusal[] | null;
  /** What checkpoints have left locked, in every network namespace that can be found; `unlock` removes it. */
  readonly locks: readonly LastingLock[];
}

/** Of pack and unpack: what was copied. */
export interface PackResult {
  readonly directory: string;
  readonly file: string;
  readonly files: number;
  readonly bytes: number;
}

export interface Results {
  readonly checkpoint: CheckpointResult;
  readonly restore: RestoreResult;
  readonly inspect: InspectResult;
  readonly plan: PlanResult;
  readonly check: CheckResult;
  readonly pack: PackResult;
  readonly unpack: PackResult;
  readonly unlock: UnlockResult;
}
