import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { decodeImage } from '../image/index.js';

/** An executable that takes the arguments of `criu`: ours, or a peer's. */
export interface Contestant {
  readonly name: string;
  readonly file: string;
}

/** One command, as the caller sees it and as the program accounts for itself. */
export interface DumpRun {
  readonly command_ms: number;
  /** From its stats-dump. */
  readonly frozen_ms: number;
  readonly image_bytes: number;
}

export interface RestoreRun {
  readonly command_ms: number;
  /** From its stats-restore: without the start of the program. */
  readonly engine_ms: number;
}

/** A command that failed; the message has the end of its log. */
export class CommandError extends Error {}

const LOG_LINES = 30;
const COMMON = ['--verbosity=1', '--manage-cgroups=ignore', '--tcp-established'] as const;

/** Runs one; answers how long it took, from before its start to its end. */
function run({ name, file }: Contestant, args: readonly string[], directory: string): number {
  const logFile = join(directory, '..', 'log');
  const log = openSync(logFile, 'w', 0o600);
  const start = performance.now();
  const { status, signal } = spawnSync(file, [...args, '-D', directory, ...COMMON], {
    stdio: ['ignore', log, log],
  });
  const command_ms = performance.now() - start;
  closeSync(log);
  if (status === 0) return command_ms;
  const said = readFileSync(logFile, 'utf8').trimEnd().split('\n').slice(-LOG_LINES).join('\n');
  throw new CommandError(`${name}: ${args.join(' ')} ended with ${signal ?? `status ${status}`}:\n${said}`);
}

export function dump(contestant: Contestant, pid: number, directory: string, leaveRunning: boolean): DumpRun {
  mkdirSync(directory, { mode: 0o700 });
  const args = ['dump', '-t', String(pid), ...(leaveRunning ? ['--leave-running'] : [])];
  const command_ms = run(contestant, args, directory);
  const { dump } = stats('stats-dump', directory);
  return { command_ms, frozen_ms: (dump?.frozenTime ?? 0) / 1000, image_bytes: sizeOf(directory) };
}

export function restore(contestant: Contestant, directory: string): RestoreRun {
  const command_ms = run(contestant, ['restore', '--restore-detached'], directory);
  const { restore } = stats('stats-restore', directory);
  return { command_ms, engine_ms: (restore?.restoreTime ?? 0) / 1000 };
}

function stats(name: 'stats-dump' | 'stats-restore', directory: string) {
  const [record] = decodeImage(name, readFileSync(join(directory, name)), name);
  if (record === undefined) throw new CommandError(`${name} is empty`);
  return record.message;
}

function sizeOf(directory: string): number {
  return readdirSync(directory).reduce((sum, name) => sum + statSync(join(directory, name)).size, 0);
}

export function remove(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
}
