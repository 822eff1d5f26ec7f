/** Files of one value each below /proc/PID: fs/proc/base.c; the manual pages proc_pid_NAME(5). */
import { ProcfsError } from './error.js';
import { fail, toBigInt, toNumber, words } from './field.js';
import { readText, taskPath, type Where } from './read.js';

function scalar(pid: number, file: string, where: Where) {
  const path = taskPath(pid, file, where);
  const line = readText(path).trimEnd();
  return { path, line };
}

/** As scalar; undefined where this kernel has no such file, or no answer, though the task is there. */
function optionalScalar(pid: number, file: string, where: Where) {
  try {
    return scalar(pid, file, where);
  } catch (error) {
    const lacking = error instanceof ProcfsError && (error.errno === 'ENOENT' || error.errno === 'EINVAL');
    if (!lacking) throw error;
    // Of a task that has ended meanwhile this says so.
    readText(taskPath(pid, 'stat', where));
    return undefined;
  }
}

/** Audit's login uid; 2^32 − 1 is none; undefined without audit in the kernel. */
export function readLoginuid(pid: number, where: Where = {}): number | undefined {
  const place = optionalScalar(pid, 'loginuid', where);
  return place === undefined ? undefined : toNumber(place.line, place);
}

export function readOomScoreAdj(pid: number, where: Where = {}): number {
  const place = scalar(pid, 'oom_score_adj', where);
  return toNumber(place.line, place);
}

/** MMF_DUMP bits; undefined for a task without memory (zombie, kernel thread) or without core dumps. */
export function readCoredumpFilter(pid: number, where: Where = {}): number | undefined {
  const place = optionalScalar(pid, 'coredump_filter', { proc: where.proc });
  return place === undefined || place.line === '' ? undefined : toNumber(place.line, place, 16);
}

/** Nanoseconds; of the thread whose number stands as PID, which may be any thread's. */
export function readTimerslack(pid: number, where: Where = {}): bigint {
  const place = scalar(where.tid ?? pid, 'timerslack_ns', { proc: where.proc });
  return toBigInt(place.line, place);
}

export function readPersonality(pid: number, where: Where = {}): number {
  const place = scalar(pid, 'personality', where);
  return toNumber(place.line, place, 16);
}

/** Kernel function the task sleeps in; 0 where it runs. */
export function readWchan(pid: number, where: Where = {}): string {
  return scalar(pid, 'wchan', where).line;
}

/** Label of the security module; undefined without one. */
export function readLsmLabel(pid: number, where: Where = {}): string | undefined {
  const place = optionalScalar(pid, 'attr/current', where);
  return place?.line.replace(/\0$/, '');
}

export type CurrentSyscall =
  | { readonly kind: 'running' }
  /** Blocked, but not in a system call. */
  | { readonly kind: 'blocked'; readonly sp: bigint; readonly pc: bigint }
  | {
      readonly kind: 'syscall';
      readonly number: number;
      readonly args: readonly bigint[];
      readonly sp: bigint;
      readonly pc: bigint;
    };

export function parseSyscall(text: string, path = '/proc/PID/syscall'): CurrentSyscall {
  const place = { path, line: text.trimEnd() };
  const [first, ...rest] = words(text);
  if (first === 'running') return { kind: 'running' };
  const number = toNumber(first, place);
  const values = rest.map((word) => toBigInt(word.replace(/^0x/, ''), place, 16));
  const [sp, pc] = values.slice(-2);
  if (sp === undefined || pc === undefined) fail(place, 'no stack pointer and program counter');
  if (number === -1 && values.length === 2) return { kind: 'blocked', sp, pc };
  if (values.length !== 8) fail(place, 'not six arguments');
  return { kind: 'syscall', number, args: values.slice(0, 6), sp, pc };
}

export function readSyscall(pid: number, where: Where = {}): CurrentSyscall {
  const path = taskPath(pid, 'syscall', where);
  return parseSyscall(readText(path), path);
}
