/** /proc/PID/uid_map, gid_map, setgroups, timens_offsets: user_namespaces(7), time_namespaces(7). */
import { fail, lines, toBigInt, toNumber, words } from './field.js';
import { readText, taskPath, type Where } from './read.js';

export interface IdRange {
  readonly inside: number;
  /** In the user namespace of the reader; 2^32 − 1 where it has no such id. */
  readonly outside: number;
  readonly count: number;
}

export function parseIdMap(text: string, path = '/proc/PID/uid_map'): IdRange[] {
  return lines(text).map((line) => {
    const place = { path, line };
    const [inside, outside, count, ...more] = words(line);
    if (more.length > 0) fail(place, 'more than three fields');
    return {
      inside: toNumber(inside, place),
      outside: toNumber(outside, place),
      count: toNumber(count, place),
    };
  });
}

export function readIdMap(pid: number, kind: 'uid_map' | 'gid_map', where: Where = {}): IdRange[] {
  const path = taskPath(pid, kind, { proc: where.proc });
  return parseIdMap(readText(path), path);
}

/** Offset of a clock in the time namespace of the task's children. */
export interface TimeOffset {
  readonly clock: 'monotonic' | 'boottime';
  readonly sec: bigint;
  readonly nsec: number;
}

export function parseTimeOffsets(text: string, path = '/proc/PID/timens_offsets'): TimeOffset[] {
  return lines(text).map((line) => {
    const place = { path, line };
    const [clock, sec, nsec] = words(line);
    if (clock !== 'monotonic' && clock !== 'boottime') fail(place, 'unknown clock');
    return { clock, sec: toBigInt(sec, place), nsec: toNumber(nsec, place) };
  });
}

export function readTimeOffsets(pid: number, where: Where = {}): TimeOffset[] {
  const path = taskPath(pid, 'timens_offsets', { proc: where.proc });
  return parseTimeOffsets(readText(path), path);
}
