/** /proc/PID/limits: proc_pid_limits(5), fs/proc/base.c proc_pid_limits(). Needs no privilege, prlimit(2) does. */
import { fail, lines, toBigInt } from './field.js';
import { readText, taskPath, type Where } from './read.js';

export interface Limit {
  readonly cur: bigint;
  readonly max: bigint;
}

/** RLIM_INFINITY of 64 bits. */
export const UNLIMITED = 0xffff_ffff_ffff_ffffn;

/** Names as printed, at the index of their RLIMIT_* number. */
const NAMES = [
  'Max cpu time',
  'Max file size',
  'Max data size',
  'Max stack size',
  'Max core file size',
  'Max resident set',
  'Max processes',
  'Max open files',
  'Max locked memory',
  'Max address space',
  'Max file locks',
  'Max pending signals',
  'Max msgqueue size',
  'Max nice priority',
  'Max realtime priority',
  'Max realtime timeout',
] as const;

/** The limits in setrlimit's units, at the index of their RLIMIT_* number. */
export function parseLimits(text: string, path = '/proc/PID/limits'): Limit[] {
  const [head = '', ...rows] = lines(text);
  if (!/^Limit +Soft Limit +Hard Limit/.test(head)) fail({ path, line: head }, 'not the head of the table');
  if (rows.length !== NAMES.length)
    fail({ path, line: rows.at(-1) ?? '' }, `${rows.length} limits instead of 16`);
  return NAMES.map((name, index) => {
    const line = rows[index] ?? '';
    const place = { path, line };
    if (!line.startsWith(`${name} `)) fail(place, `not the line of ${name}`);
    const [cur, max] = line.slice(name.length).trim().split(/ +/);
    const value = (word: string | undefined) => (word === 'unlimited' ? UNLIMITED : toBigInt(word, place));
    return { cur: value(cur), max: value(max) };
  });
}

export function readLimits(pid: number, where: Where = {}): Limit[] {
  const path = taskPath(pid, 'limits', where);
  return parseLimits(readText(path), path);
}
