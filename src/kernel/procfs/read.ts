/**
 * Reading below /proc: files have no size there, and a sequence file answers in pieces of about a page, so
 * read until the end. One buffer serves all calls (they are synchronous, and a worker has its own module).
 */
import { Buffer } from 'node:buffer';
import { closeSync, openSync, readdirSync, readlinkSync, readSync } from 'node:fs';
import { decodeBytes } from './bytes.js';
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

let scratch = Buffer.allocUnsafeSlow(1 << 18);

/** Fills the shared buffer; what is returned is good until the next read. */
function slurp(path: string): Buffer {
  const fd = attempt(path, 'cannot open', () => openSync(path, 'r'));
  try {
    let length = 0;
    for (;;) {
      if (length === scratch.length) grow();
      const count = attempt(path, 'cannot read', () =>
        readSync(fd, scratch, length, scratch.length - length, null),
      );
      if (count === 0) return scratch.subarray(0, length);
      length += count;
    }
  } finally {
    closeSync(fd);
  }
}

function grow(): void {
  const larger = Buffer.allocUnsafeSlow(scratch.length * 4);
  scratch.copy(larger);
  scratch = larger;
}

export function readText(path: string): string {
  return decodeBytes(slurp(path));
}

export function readBytes(path: string): Buffer {
  return Buffer.from(slurp(path));
}

export function readLink(path: string): string {
  return decodeBytes(attempt(path, 'cannot read link', () => readlinkSync(path, { encoding: 'buffer' })));
}

/** Entries of a directory that are numbers, ascending. */
export function readNumbers(path: string): number[] {
  const numbers: number[] = [];
  for (const name of attempt(path, 'cannot list', () => readdirSync(path))) {
    if (/^\d+$/.test(name)) numbers.push(Number(name));
  }
  return numbers.sort((a, b) => a - b);
}

/** Runs a call of node:fs; its error becomes a ProcfsError. */
export function attempt<T>(path: string, reason: string, call: () => T): T {
  try {
    return call();
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? `: ${String(cause.code)}` : '';
    throw new ProcfsError(path, '', `${reason}${code}`, { cause });
  }
}
