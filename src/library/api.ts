import path from 'node:path';
import { type CallControl, ENGINE_FIRST_FD, Engine, type EngineOptions } from './engine.js';
import { METHODS, type Method, type OptionsOf, type ParsedOptions } from './requests.js';
import type {
  CheckpointResult,
  CheckResult,
  ExitStatus,
  InspectResult,
  PlanResult,
  RestoreResult,
  Results,
} from './results.js';

/**
 * The library. Every function checks its options, does its work in an engine's process, and answers when it is done.
 * Without an `engine` each call starts one (about a tenth of a second) and ends it.
 */

export interface Control extends CallControl {
  /** An engine that is there already. */
  readonly engine?: Engine | undefined;
}

type Call<M extends Method> = OptionsOf<M> & Control & EngineChoice;

interface EngineChoice {
  /** For the engine that this call starts; see EngineOptions. */
  readonly stdio?: EngineOptions['stdio'];
}

export type CheckpointOptions = Call<'checkpoint'>;
export type RestoreOptions = Call<'restore'>;
export type InspectOptions = Call<'inspect'>;
export type PlanOptions = Call<'plan'>;
export type CheckOptions = Call<'check'>;

export interface Restored extends RestoreResult {
  /**
   * How the root ends, for a restore without `detach`. The root is a child of the engine's process, not of the
   * caller's: no kernel interface makes it a grandparent's child.
   */
  readonly exit: Promise<ExitStatus> | undefined;
}

/** An engine, started now so that it is warm when it is needed. */
export function createEngine(options: EngineOptions = {}): Engine {
  return new Engine(options);
}

/**
 * Save the tree below `pid` into an image directory.
 * @throws UnsupportedError with every reason why it cannot be saved, before anything was touched; ImageError,
 * SyscallError; CancelledError. Whatever is thrown, the tree goes on as if nothing had happened, and there is no image.
 */
export function checkpoint(options: CheckpointOptions): Promise<CheckpointResult> {
  return once('checkpoint', options);
}

/**
 * Bring a tree back from an image.
 * @throws ImageError with file and offset, RestoreError, SyscallError, CancelledError; no process of it is left then.
 */
export async function restore(options: RestoreOptions): Promise<Restored> {
  const { control, parsed, stdio } = split('restore', options);
  const inherited = Object.entries(parsed.inherit_fds);
  if (control.engine !== undefined && inherited.length > 0)
    throw new TypeError(
      'inherit_fds needs an engine of its own: descriptors can only be handed to one that starts',
    );
  const engine = control.engine ?? new Engine({ ...stdio, fds: inherited.map(([, fd]) => fd) });
  const inherit_fds = Object.fromEntries(inherited.map(([key], index) => [key, ENGINE_FIRST_FD + index]));
  let keep = false;
  try {
    const result = await engine.call('restore', { ...parsed, inherit_fds }, control);
    if (parsed.detach) return { ...result, exit: undefined };
    keep = true;
    const exit = engine.exitOf(result.pid);
    // Not handled is not an accident here: whoever does not look at `exit` does not care.
    exit.catch(() => {});
    if (control.engine === undefined) exit.finally(() => engine.close()).catch(() => {});
    return { ...result, exit };
  } finally {
    if (!keep && control.engine === undefined) await engine.close();
  }
}

/** What an image holds. @throws ImageError */
export function inspect(options: InspectOptions): Promise<InspectResult> {
  return once('inspect', options);
}

/** The tapes that a restore of an image would play. @throws ImageError, RestoreError */
export function plan(options: PlanOptions): Promise<PlanResult> {
  return once('plan', options);
}

/** What this host offers, and every reason why a tree could not be saved. */
export function check(options: CheckOptions = {}): Promise<CheckResult> {
  return once('check', options);
}

async function once<M extends Method>(method: M, options: Call<M>): Promise<Results[M]> {
  const { control, parsed, stdio } = split(method, options);
  if (control.engine !== undefined) return control.engine.call(method, parsed, control);
  const engine = new Engine(stdio);
  try {
    return await engine.call(method, parsed, control);
  } finally {
    await engine.close();
  }
}

/** @throws ZodError for options that are none; relative directories are the caller's. */
function split<M extends Method>(
  method: M,
  options: Call<M>,
): { control: Control; parsed: ParsedOptions<M>; stdio: EngineOptions } {
  const { signal, onProgress, engine, stdio, ...rest } = options;
  const parsed = METHODS[method].parse(rest) as ParsedOptions<M>;
  const absolute = 'directory' in parsed ? { ...parsed, directory: path.resolve(parsed.directory) } : parsed;
  return {
    control: { signal, onProgress, engine },
    parsed: absolute,
    stdio: stdio === undefined ? {} : { stdio },
  };
}
