/** /proc/PID/mountinfo: proc_pid_mountinfo(5), fs/proc_namespace.c show_mountinfo(). */
import { fail, lines, type Place, present, toNumber, unescapeOctal } from './field.js';
import { readText, taskPath, type Where } from './read.js';

export interface MountInfo {
  readonly id: number;
  readonly parent: number;
  readonly major: number;
  readonly minor: number;
  /** Of the file system, what is mounted here; '//deleted' at its end where it was removed. */
  readonly root: string;
  /** As seen from the root of the task that was read. */
  readonly mountPoint: string;
  /** Options of the mount. */
  readonly options: readonly string[];
  /** Peer groups. */
  readonly shared: number | undefined;
  readonly master: number | undefined;
  readonly propagateFrom: number | undefined;
  readonly unbindable: boolean;
  readonly type: string;
  readonly source: string;
  /** Options of the file system, escapes decoded after the split at commas. */
  readonly superOptions: readonly string[];
}

export function parseMountinfo(text: string, path = '/proc/PID/mountinfo'): MountInfo[] {
  return lines(text).map((line) => parseMount({ path, line }));
}

function parseMount(place: Place): MountInfo {
  // A source may be empty, so every single space counts.
  const fields = place.line.split(' ');
  const dash = fields.indexOf('-', 6);
  if (dash < 0) fail(place, 'no separator');
  const [type, source, superOptions] = fields.slice(dash + 1);
  if (fields.length !== dash + 4) fail(place, 'not three fields after the separator');
  const device = /^(\d+):(\d+)$/.exec(fields[2] ?? '') ?? fail(place, 'no device');
  const field = (index: number, what: string) => present(fields[index], place, what);
  return {
    id: toNumber(fields[0], place),
    parent: toNumber(fields[1], place),
    major: toNumber(device[1], place),
    minor: toNumber(device[2], place),
    root: unescapeOctal(field(3, 'root')),
    mountPoint: unescapeOctal(field(4, 'mount point')),
    options: options(field(5, 'options')),
    ...propagation(fields.slice(6, dash), place),
    type: unescapeOctal(present(type, place, 'type')),
    source: unescapeOctal(present(source, place, 'source')),
    superOptions: options(present(superOptions, place, 'options of the file system')),
  };
}

function options(text: string): string[] {
  return text.split(',').map(unescapeOctal);
}

function propagation(tags: readonly string[], place: Place) {
  let shared: number | undefined;
  let master: number | undefined;
  let propagateFrom: number | undefined;
  let unbindable = false;
  for (const tag of tags) {
    const [name, value] = tag.split(':');
    if (name === 'shared') shared = toNumber(value, place);
    else if (name === 'master') master = toNumber(value, place);
    else if (name === 'propagate_from') propagateFrom = toNumber(value, place);
    else if (tag === 'unbindable') unbindable = true;
    else fail(place, `unknown propagation ${tag}`);
  }
  return { shared, master, propagateFrom, unbindable };
}

export function readMountinfo(pid: number, where: Where = {}): MountInfo[] {
  const path = taskPath(pid, 'mountinfo', where);
  return parseMountinfo(readText(path), path);
}
