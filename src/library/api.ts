import path from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { type CallControl, ENGINE_FIRST_FD, Engine, type EngineOptions } from './engine.js';
import { METHODS, type Method, type OptionsOf, type ParsedOptions } from './requests.js';
import type {
  CheckpointResult,
  CheckResult,
  ExitStatus,
  InspectResult,
  PackResult,
  PlanResult,
  RestoreResult,
  Results,
  UnlockResult,
} from './results.js';
import {
  ARCHIVE_SUFFIX,
  type ImageOrigin,
  type ImageSink,
  isNodeStream,
  StreamEngine,
  type StreamPatience,
} from './streams.js';

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

export type CheckpointOptions = Omit<Call<'checkpoint'>, 'directory' | 'to'> &
  ({ readonly directory: string } | CheckpointTo);
export type RestoreOptions = Omit<Call<'restore'>, 'directory' | 'stream'> &
  ({ readonly directory: string } | RestoreFrom);
export type InspectOptions = Call<'inspect'>;
export type PlanOptions = Call<'plan'>;
export type CheckOptions = Call<'check'>;
export type PackOptions = Call<'pack'>;
export type UnpackOptions = Call<'unpack'>;
export type UnlockOptions = Call<'unlock'>;

interface CheckpointTo {
  readonly to: ImageSink;
  /**
   * With a stream: what the other end answers. The source is killed only when the tree runs there, and goes on when it
   * could not be brought up.
   */
  readonly answers?: Readable;
  /** Patience with the other end of a Writable. */
  readonly patience?: StreamPatience;
}

interface RestoreFrom {
  readonly from: ImageOrigin;
  /** With a stream: where a source that waits for the tree is answered. */
  readonly answers?: Writable;
}

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
 * Save the tree below `pid` into an image directory, an archive, or a stream (a Writable is ended after it).
 * @throws UnsupportedError with every reason why it cannot be saved, before anything was touched; ImageError,
 * SyscallError; CancelledError; MoveError when the other end of a stream did not bring the tree up. Whatever is thrown,
 * the tree goes on as if nothing had happened, and there is no image; only after a MoveError whose `sourceState` is
 * `stopped` it is stopped, because nobody here knows whether it runs at the other end.
 */
export async function checkpoint(options: CheckpointOptions): Promise<CheckpointResult> {
  if (!('to' in options)) return once('checkpoint', options);
  const { to, answers, patience, ...rest } = options;
  if (isNodeStream(to)) return checkpointTo(to, { answers, patience }, rest);
  if (answers !== undefined) throw new TypeError('answers are of a stream');
  if (typeof to !== 'string')
    return once('checkpoint', { ...rest, ...UNNAMED, to: { kind: 'stream', ...to } });
  if (!to.endsWith(ARCHIVE_SUFFIX)) return once('checkpoint', { ...rest, directory: to });
  return once('checkpoint', { ...rest, directory: to, to: { kind: 'archive' } });
}

/** What messages call a stream. */
const UNNAMED = { directory: 'the stream' } as const;

async function checkpointTo(
  to: Writable,
  {
    answers,
    patience,
  }: { readonly answers: Readable | undefined; readonly patience: StreamPatience | undefined },
  rest: Omit<Call<'checkpoint'>, 'directory' | 'to'>,
): Promise<CheckpointResult> {
  refuseEngine(rest.engine);
  const { stdio } = split('checkpoint', { ...rest, ...UNNAMED });
  const ends = new StreamEngine(stdio, answers !== undefined);
  const { engine, fd } = ends;
  const place = { kind: 'stream', fd, answers: ends.answers, inherited: true, ...patience } as const;
  ends.read(fd, to);
  if (answers !== undefined && ends.answers !== undefined) ends.write(ends.answers, answers);
  try {
    const { control, parsed } = split('checkpoint', { ...rest, ...UNNAMED, to: place });
    const result = await engine.call('checkpoint', parsed, control);
    answers?.destroy();
    await engine.close();
    await ends.settled();
    return result;
  } catch (error) {
    to.destroy(error instanceof Error ? error : undefined);
    answers?.destroy();
    await engine.close();
    throw error;
  }
}

function refuseEngine(engine: Engine | undefined): void {
  if (engine !== undefined)
    throw new TypeError('a stream of Node.js needs an engine of its own; one that is there takes { fd }');
}

/**
 * Bring a tree back from an image directory, an archive, or a stream.
 * @throws ImageError with file and offset, RestoreError, SyscallError, CancelledError, MoveError when a source that waits
 * for the tree has not let go of its own; no process of it is left then.
 */
export async function restore(options: RestoreOptions): Promise<Restored> {
  if (!('from' in options)) return restoreWith(options, undefined);
  const { from, answers, ...rest } = options;
  if (typeof from === 'string') return restoreWith({ ...rest, directory: from }, undefined);
  if (!isNodeStream(from)) return restoreWith({ ...rest, ...UNNAMED, stream: from }, undefined);
  refuseEngine(rest.engine);
  const own = Object.values(rest.inherit_fds ?? {});
  const ends = new StreamEngine(
    { ...(rest.stdio === undefined ? {} : { stdio: rest.stdio }), fds: own },
    answers !== undefined,
  );
  ends.write(ends.fd, from);
  if (answers !== undefined && ends.answers !== undefined) ends.read(ends.answers, answers);
  const stream = { fd: ends.fd, answers: ends.answers, inherited: true };
  return restoreWith({ ...rest, ...UNNAMED, stream }, ends);
}

async function restoreWith(options: Call<'restore'>, ends: StreamEngine | undefined): Promise<Restored> {
  const { control, parsed, stdio } = split('restore', options);
  const inherited = Object.entries(parsed.inherit_fds);
  if (control.engine !== undefined && inherited.length > 0)
    throw new TypeError(
      'inherit_fds needs an engine of its own: descriptors can only be handed to one that starts',
    );
  const engine =
    control.engine ?? ends?.engine ?? new Engine({ ...stdio, fds: inherited.map(([, fd]) => fd) });
  const first = ends?.next ?? ENGINE_FIRST_FD;
  const inherit_fds = Object.fromEntries(inherited.map(([key], index) => [key, first + index]));
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
    if (!keep && control.engine === undefined) {
      await engine.close();
      await ends?.settled();
    }
  }
}

/** Make one file of an image directory. @throws ImageError; no archive is left then */
export function pack(options: PackOptions): Promise<PackResult> {
  return once('pack', options);
}

/** Make an image directory of an archive. @throws ImageError; no image is left then */
export function unpack(options: UnpackOptions): Promise<PackResult> {
  return once('unpack', options);
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

/**
 * Let go of the connections that a checkpoint has left silent, for an image that will not be restored, or a stream's
 * source; decide about one that was left stopped.
 */
export function unlock(options: UnlockOptions): Promise<UnlockResult> {
  return once('unlock', options);
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
  const absolute = absolutePaths(parsed);
  return {
    control: { signal, onProgress, engine },
    parsed: absolute,
    stdio: stdio === undefined ? {} : { stdio },
  };
}

/** An engine's current directory is not the caller's. */
function absolutePaths<P extends object>(parsed: P): P {
  const isStream =
    ('stream' in parsed && parsed.stream !== undefined) || ('to' in parsed && isStreamPlace(parsed.to));
  const paths = ['directory', 'file'].filter(
    (key) => parsed[key as keyof P] !== undefined && !(isStream && key === 'directory'),
  );
  return {
    ...parsed,
    ...Object.fromEntries(paths.map((key) => [key, path.resolve(String(parsed[key as keyof P]))])),
    ...('join_ns' in parsed ? { join_ns: (parsed.join_ns as readonly string[]).map(absoluteJoin) } : {}),
  };
}

/** `net:PATH`; what comes after the colon may be a pid instead. */
function absoluteJoin(join: string): string {
  const [kind = '', ...rest] = join.split(':');
  const place = rest.join(':');
  return /^\d+$/.test(place) ? join : `${kind}:${path.resolve(place)}`;
}

function isStreamPlace(to: unknown): boolean {
  return typeof to === 'object' && to !== null && 'kind' in to && to.kind === 'stream';
}
