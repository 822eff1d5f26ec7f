/** /proc/PID/stat and /proc/PID/task/TID/stat: proc_pid_stat(5), fs/proc/array.c do_task_stat(). */
import { fail, toBigInt, toNumber, words } from './field.js';
import { readText, taskPath, type Where } from './read.js';

/** Times are clock ticks (100 a second); addresses read 0 without ptrace access. */
export interface Stat {
  readonly pid: number;
  readonly comm: string;
  /** R S D Z T t X I P. */
  readonly state: string;
  readonly ppid: number;
  readonly pgrp: number;
  readonly session: number;
  readonly tty_nr: number;
  readonly tpgid: number;
  /** PF_*, as include/linux/sched.h. */
  readonly flags: number;
  readonly minflt: number;
  readonly cminflt: number;
  readonly majflt: number;
  readonly cmajflt: number;
  readonly utime: number;
  readonly stime: number;
  readonly cutime: number;
  readonly cstime: number;
  readonly priority: number;
  readonly nice: number;
  readonly num_threads: number;
  /** Ticks since boot, in the time namespace of the reader. */
  readonly starttime: number;
  readonly vsize: bigint;
  /** Pages. */
  readonly rss: number;
  readonly rsslim: bigint;
  readonly start_code: bigint;
  readonly end_code: bigint;
  readonly startstack: bigint;
  readonly kstkesp: bigint;
  readonly kstkeip: bigint;
  readonly exit_signal: number;
  readonly processor: number;
  readonly rt_priority: number;
  readonly policy: number;
  readonly delayacct_blkio_ticks: number;
  readonly guest_time: number;
  readonly cguest_time: number;
  readonly start_data: bigint;
  readonly end_data: bigint;
  readonly start_brk: bigint;
  readonly arg_start: bigint;
  readonly arg_end: bigint;
  readonly env_start: bigint;
  readonly env_end: bigint;
  /** A wait status, of zombies. */
  readonly exit_code: number;
}

/** The name may hold anything, parentheses and newlines too: it ends at the last parenthesis. */
export function parseStat(text: string, path = '/proc/PID/stat'): Stat {
  const place = { path, line: text };
  const open = text.indexOf(' (');
  const close = text.lastIndexOf(') ');
  if (open < 0 || close < open) fail(place, 'no name in parentheses');
  const rest = words(text.slice(close + 2));
  if (rest.length < 50) fail(place, `${rest.length + 2} fields instead of 52`);
  // Fields are counted from 1 in the manual; the third is rest[0].
  const number = (field: number) => toNumber(rest[field - 3], place);
  const wide = (field: number) => toBigInt(rest[field - 3], place);
  const state = rest[0] ?? '';
  if (!/^[A-Za-z]$/.test(state)) fail(place, `no state: ${state}`);
  return {
    pid: toNumber(text.slice(0, open), place),
    comm: text.slice(open + 2, close),
    state,
    ppid: number(4),
    pgrp: number(5),
    session: number(6),
    tty_nr: number(7),
    tpgid: number(8),
    flags: number(9),
    minflt: number(10),
    cminflt: number(11),
    majflt: number(12),
    cmajflt: number(13),
    utime: number(14),
    stime: number(15),
    cutime: number(16),
    cstime: number(17),
    priority: number(18),
    nice: number(19),
    num_threads: number(20),
    starttime: number(22),
    vsize: wide(23),
    rss: number(24),
    rsslim: wide(25),
    start_code: wide(26),
    end_code: wide(27),
    startstack: wide(28),
    kstkesp: wide(29),
    kstkeip: wide(30),
    exit_signal: number(38),
    processor: number(39),
    rt_priority: number(40),
    policy: number(41),
    delayacct_blkio_ticks: number(42),
    guest_time: number(43),
    cguest_time: number(44),
    ...addresses(wide),
    exit_code: number(52),
  };
}

function addresses(wide: (field: number) => bigint) {
  return {
    start_data: wide(45),
    end_data: wide(46),
    start_brk: wide(47),
    arg_start: wide(48),
    arg_end: wide(49),
    env_start: wide(50),
    env_end: wide(51),
  };
}

export function readStat(pid: number, where: Where = {}): Stat {
  const path = taskPath(pid, 'stat', where);
  return parseStat(readText(path), path);
}

/** The state letter of a thread alone. */
export function readState(pid: number, tid: number): string {
  return readStateFlags(pid, tid).state;
}

/** The state letter of a thread, and its PF_* flags. */
export function readStateFlags(pid: number, tid: number): { state: string; flags: number } {
  const path = taskPath(pid, 'stat', { tid });
  const text = readText(path);
  const [state = '', ...rest] = text.slice(text.lastIndexOf(') ') + 2).split(' ', 7);
  return { state, flags: Number(rest[5]) };
}
