/** /proc/PID/cgroup: cgroups(7), kernel/cgroup/cgroup.c proc_cgroup_show(). */
import { fail, lines, toNumber } from './field.js';
import { readText, taskPath, type Where } from './read.js';

export interface CgroupMembership {
  /** 0 is the unified hierarchy (version 2). */
  readonly hierarchy: number;
  /** Controllers, or `name=NAME`; empty in version 2. */
  readonly controllers: readonly string[];
  /** Relative to the reader's cgroup namespace: begins with /../ outside of it. */
  readonly path: string;
  /** The group was removed; only zombies live on in one. */
  readonly deleted: boolean;
}

export function parseCgroup(text: string, path = '/proc/PID/cgroup'): CgroupMembership[] {
  return lines(text).map((line) => {
    const place = { path, line };
    const match = /^(\d+):([^:]*):(\/.*)$/.exec(line) ?? fail(place, 'not hierarchy:controllers:path');
    const group = match[3] ?? '';
    const deleted = group.endsWith(' (deleted)');
    return {
      hierarchy: toNumber(match[1], place),
      controllers: (match[2] ?? '').split(',').filter((name) => name !== ''),
      path: deleted ? group.slice(0, -' (deleted)'.length) : group,
      deleted,
    };
  });
}

export function readCgroup(pid: number, where: Where = {}): CgroupMembership[] {
  const path = taskPath(pid, 'cgroup', where);
  return parseCgroup(readText(path), path);
}
