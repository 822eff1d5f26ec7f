/**
 * Reading below /proc: files have no size there, and a sequence file answers in pieces of about a page, so
 * read until the end. One buffer serves all calls (they are synchronous, and a worker has its own module).
 */
import { Buffer } from 'node:buffer';
import { readdirSync } from 'node:fs';
import { AT_FDCWD, O_CLOEXEC, O_RDONLY } from '../../abi/fcntl.js';
import { insist } from '../insist.js';
import { NativeMemory } from '../memory.js';
import { syscall, attempt as tryCall } from '../syscall.js';
import { askAll } from '../together.js';
import { decodeBytes, encodeBytes } from './bytes.js';
import { ProcfsError } from './error.js';

/** Which of a process's files: those of one thread, and where procfs is mounted. */
export interface Where {
  readonly tid?: number | undefined;
  readonly proc?: string | undefined;
}

/** A file of a process or of one of its threads. */
export function taskPath(pid: number, file: string, where: Where = {}): string {
  const process = `${where.proc ?? '/proc'}/${pid}`;
  return where.tid === undefined ? `${process}/${file}` : `${process}/task/${where.tid}/${file}`;
}

/** Raw calls into memory of our own cost a third of node:fs's, and much of this is read while a tree is frozen. */
const PATH_ROOM = 8192;
let memory = new NativeMemory(PATH_ROOM + (1 << 18));

function put(path: string): bigint {
  const bytes = encodeBytes(path);
  if (bytes.length >= PATH_ROOM) throw new ProcfsError(path, '', 'the path is too long');
  memory.bytes.set(bytes);
  memory.bytes[bytes.length] = 0;
  return memory.address;
}

/** Reads into the shared memory; what is returned is good until the next read. */
function slurp(path: string): Buffer {
  const open = kept.get(path);
  const again = open === undefined ? undefined : readOpen(open);
  if (again !== undefined) return again;
  const fd = attempt(path, 'cannot open', () =>
    syscall('openat', [AT_FDCWD, put(path), O_RDONLY | O_CLOEXEC, 0]),
  );
  try {
    let length = 0;
    for (;;) {
      const room = memory.length - PATH_ROOM - length;
      if (room === 0) {
        grow();
        continue;
      }
      const at = memory.address + BigInt(PATH_ROOM + length);
      const count = attempt(path, 'cannot read', () => syscall('read', [fd, at, room]));
      if (count === 0) return Buffer.from(memory.bytes.buffer, PATH_ROOM, length);
      length += count;
    }
  } finally {
    syscall('close', [fd]);
  }
}

/** By path. */
const kept = new Map<string, number>();
const ahead = new Map<string, string>();
/** More than a status file has. */
const AHEAD_ROOM = 3072;

/**
 * Files that will be read again when there is no time to open them, which is most of the work. They stay those of the
 * tasks that had them; where these have ended, the path is opened as ever.
 */
export class KeptFiles implements Disposable {
  readonly #paths: string[] = [];

  /** Files that cannot be opened are left to whoever reads them. */
  keep(path: string): void {
    const fd = tryCall('openat', [AT_FDCWD, put(path), O_RDONLY | O_CLOEXEC, 0]);
    if (fd < 0) return;
    kept.set(path, fd);
    this.#paths.push(path);
  }

  /** Read all of them at once: until `forget`, this is what readText answers of them. */
  readAhead(): void {
    const texts = askAll<string, string | undefined>(
      this.#paths,
      AHEAD_ROOM,
      (ask, path, at) => ask('pread64', kept.get(path) ?? -1, at, AHEAD_ROOM, 0),
      // One that has filled the room may be longer.
      ({ results: [length = -1], bytes }) =>
        length < 0 || length === AHEAD_ROOM ? undefined : decodeBytes(Buffer.from(bytes.subarray(0, length))),
    );
    texts.forEach((text, index) => {
      if (text !== undefined) ahead.set(this.#paths[index] ?? '', text);
    });
  }

  forget(): void {
    for (const path of this.#paths) ahead.delete(path);
  }

  [Symbol.dispose](): void {
    this.forget();
    for (let path = this.#paths.pop(); path !== undefined; path = this.#paths.pop()) {
      const fd = kept.get(path);
      kept.delete(path);
      if (fd !== undefined) insist(() => tryCall('close', [fd]));
    }
  }
}

/** The whole of an open file; undefined where it must be opened anew, for it is longer than expected, or of a task that has ended. */
function readOpen(fd: number): Buffer | undefined {
  const room = memory.length - PATH_ROOM;
  for (let length = 0; length < room; ) {
    const at = memory.address + BigInt(PATH_ROOM + length);
    const count = tryCall('pread64', [fd, at, room - length, length]);
    if (count < 0) return undefined;
    if (count === 0) return Buffer.from(memory.bytes.buffer, PATH_ROOM, length);
    length += count;
  }
  return undefined;
}

function grow(): void {
  const larger = new NativeMemory(memory.length * 4);
  larger.bytes.set(memory.bytes);
  memory[Symbol.dispose]();
  memory = larger;
}

export function readText(path: string): string {
  return ahead.get(path) ?? decodeBytes(slurp(path));
}

export function readBytes(path: string): Buffer {
  return Buffer.from(slurp(path));
}

export function readLink(path: string): string {
  const room = memory.length - PATH_ROOM;
  const to = memory.address + BigInt(PATH_ROOM);
  const length = attempt(path, 'cannot read link', () =>
    syscall('readlinkat', [AT_FDCWD, put(path), to, room]),
  );
  return decodeBytes(Buffer.from(memory.bytes.buffer, PATH_ROOM, length));
}

/** Entries of a directory that are numbers, ascending. */
export function readNumbers(path: string): number[] {
  const numbers: number[] = [];
  for (const name of attempt(path, 'cannot list', () => readdirSync(path))) {
    if (/^\d+$/.test(name)) numbers.push(Number(name));
  }
  return numbers.sort((a, b) => a - b);
}

/** Runs a call; its error becomes a ProcfsError. */
export function attempt<T>(path: string, reason: string, call: () => T): T {
  try {
    return call();
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? `: ${String(cause.code)}` : '';
    throw new ProcfsError(path, '', `${reason}${code}`, { cause });
  }
}
