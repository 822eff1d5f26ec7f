/**
 * /proc/PID/maps: proc_pid_maps(5), fs/proc/task_mmu.c show_map_vma(). Parsed by hand, since ten thousand
 * mappings are not rare and the task is frozen meanwhile.
 */
import { statSync } from 'node:fs';
import { encodeBytes } from './bytes.js';
import { ProcfsError } from './error.js';
import { attempt, readLink, readText, taskPath, type Where } from './read.js';

export interface Mapping {
  readonly start: bigint;
  readonly end: bigint;
  /** As printed: `rwxp`, the last letter s for shared. */
  readonly perms: string;
  readonly offset: bigint;
  readonly major: number;
  readonly minor: number;
  readonly inode: bigint;
  /** File, or `[heap]`, `[stack]`, `[vdso]`, `[anon:NAME]` …, or empty; without ' (deleted)'. */
  readonly path: string;
  /** The text ended in ' (deleted)': so does that of a living file of that name, see readMapFile. */
  readonly deleted: boolean;
}

const DELETED = ' (deleted)';
const NEWLINE = 10;
const SPACE = 32;

/** Walks a text by its characters; shared with smaps, which has the same line at the head of each block. */
export class Cursor {
  at = 0;
  readonly text: string;
  readonly path: string;

  constructor(text: string, path: string) {
    this.text = text;
    this.path = path;
  }

  get done(): boolean {
    return this.at >= this.text.length;
  }
  lineEnd(): number {
    const end = this.text.indexOf('\n', this.at);
    return end < 0 ? this.text.length : end;
  }
  fail(reason: string): never {
    const start = this.text.lastIndexOf('\n', this.at - 1) + 1;
    throw new ProcfsError(this.path, this.text.slice(start, this.lineEnd()), reason);
  }
  /** A hexadecimal number that the given character follows. Numbers of thirteen digits and less stay cheap. */
  hex(follower: number): bigint {
    const from = this.at;
    let value = 0;
    for (;;) {
      const code = this.text.charCodeAt(this.at);
      const digit = code <= 57 ? code - 48 : code - 87;
      if (code === follower) break;
      if (!(digit >= 0 && digit < 16) || (code > 57 && code < 97)) this.fail('not a hexadecimal number');
      value = value * 16 + digit;
      this.at++;
    }
    const length = this.at - from;
    if (length === 0) this.fail('no number');
    this.at++;
    return length <= 13 ? BigInt(value) : BigInt(`0x${this.text.slice(from, this.at - 1)}`);
  }
}

/** One line of maps; the cursor is left behind its newline. */
export function nextMapping(cursor: Cursor): Mapping {
  const start = cursor.hex(45);
  const end = cursor.hex(SPACE);
  const perms = cursor.text.slice(cursor.at, cursor.at + 4);
  cursor.at += 4;
  if (cursor.text.charCodeAt(cursor.at) !== SPACE) cursor.fail('permissions are not four letters');
  cursor.at++;
  const offset = cursor.hex(SPACE);
  const major = Number(cursor.hex(58));
  const minor = Number(cursor.hex(SPACE));
  const from = cursor.at;
  while (isDigit(cursor.text.charCodeAt(cursor.at))) cursor.at++;
  if (cursor.at === from) cursor.fail('no inode');
  const inode = BigInt(cursor.text.slice(from, cursor.at));
  while (cursor.text.charCodeAt(cursor.at) === SPACE) cursor.at++;
  const lineEnd = cursor.lineEnd();
  const text = cursor.at < lineEnd ? unescapeNewlines(cursor.text.slice(cursor.at, lineEnd)) : '';
  cursor.at = lineEnd + 1;
  const deleted = text.endsWith(DELETED);
  const path = deleted ? text.slice(0, -DELETED.length) : text;
  return { start, end, perms, offset, major, minor, inode, path, deleted };
}

function isDigit(code: number): boolean {
  return code >= 48 && code <= 57;
}

/** Only newlines are escaped here, not backslashes: readMapFile knows which of both a \012 was. */
function unescapeNewlines(text: string): string {
  return text.includes('\\') ? text.replaceAll('\\012', String.fromCharCode(NEWLINE)) : text;
}

export function parseMaps(text: string, path = '/proc/PID/maps'): Mapping[] {
  const cursor = new Cursor(text, path);
  const mappings: Mapping[] = [];
  while (!cursor.done) mappings.push(nextMapping(cursor));
  return mappings;
}

/** The mapping that an address is in, of all those of a process in their order. */
export function mappingAt(maps: readonly Mapping[], address: bigint): Mapping | undefined {
  let low = 0;
  let high = maps.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const mapping = maps[middle];
    if (mapping === undefined) return undefined;
    if (address < mapping.start) high = middle;
    else if (address >= mapping.end) low = middle + 1;
    else return mapping;
  }
  return undefined;
}

export function readMaps(pid: number, where: Where = {}): Mapping[] {
  const path = taskPath(pid, 'maps', where);
  return parseMaps(readText(path), path);
}

/** Path below map_files through which the mapped file itself can be opened. */
export function mapFilePath(pid: number, range: { start: bigint; end: bigint }, where: Where = {}): string {
  const name = `map_files/${range.start.toString(16)}-${range.end.toString(16)}`;
  return taskPath(pid, name, { proc: where.proc });
}

/**
 * Name of a mapped file without maps' two ambiguities: the link escapes nothing, and a name that ends in
 * ' (deleted)' counts as deleted only if no such file lies there. The path is looked up in the mounts and
 * root of the caller, so for a task elsewhere it errs on the side of deleted.
 */
export function readMapFile(pid: number, range: { start: bigint; end: bigint }, where: Where = {}) {
  const file = mapFilePath(pid, range, where);
  const text = readLink(file);
  const found = attempt(file, 'cannot stat', () => statSync(file, { bigint: true }));
  if (!text.endsWith(DELETED)) return { path: text, deleted: false, stat: found };
  const named = statSync(encodeBytes(text), { bigint: true, throwIfNoEntry: false });
  if (named !== undefined && named.dev === found.dev && named.ino === found.ino) {
    return { path: text, deleted: false, stat: found };
  }
  return { path: text.slice(0, -DELETED.length), deleted: true, stat: found };
}
