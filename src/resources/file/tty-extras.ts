import type { ImageReader, ImageWriter } from '../../image/index.js';
import { isRecord, readJson } from '../../image/json.js';
import { perRestore } from '../description/state.js';

/** What CRIU's format has no place for, in a file of our own, which CRIU ignores. */
export interface TerminalExtras {
  /** By index. */
  readonly pairs: Readonly<Record<string, PairExtras>>;
  /** Descriptions by their id in files.img. */
  readonly files: Readonly<Record<string, FileExtras>>;
  /** Pids, as in the image, that have no terminal though their session has. */
  readonly without: readonly number[];
}

export interface PairExtras {
  /** Of the slave, where no description of it says so. */
  readonly owner?: { readonly uid: number; readonly gid: number; readonly mode: number };
  /** Is the slave closed, as opposed to never opened? */
  readonly closed?: boolean;
  /** So many bytes at the end of what waits in the slave the line discipline has not seen. */
  readonly untreated?: number;
  readonly stopped?: boolean;
  /** The foreground group, if nobody is in it. */
  readonly foreground?: number;
}

export interface FileExtras {
  /** The pair that a description of /dev/tty is one of. */
  readonly index?: number;
  /** It was hung up, whatever its terminal is. */
  readonly hungUp?: boolean;
}

const FILE = 'stasis-terminals.json';
const NONE: TerminalExtras = { pairs: {}, files: {}, without: [] };

export function writeExtras(extras: TerminalExtras, writer: ImageWriter): void {
  const { pairs, files, without } = extras;
  if (Object.keys(pairs).length + Object.keys(files).length + without.length === 0) return;
  writer.writeBytes(FILE, [Buffer.from(JSON.stringify(extras))]);
}

function readExtras(reader: ImageReader): TerminalExtras {
  return readJson(reader, FILE, decode) ?? NONE;
}

export const extrasOf = perRestore(({ reader }) => readExtras(reader));

function decode(content: unknown): TerminalExtras {
  if (!isExtras(content)) throw new Error('is not what was written');
  return content;
}

function isExtras(value: unknown): value is TerminalExtras {
  if (!isRecord(value)) return false;
  const { pairs, files, without } = value;
  return (
    isRecord(pairs) &&
    Object.values(pairs).every(isPair) &&
    isRecord(files) &&
    Object.values(files).every(isFile) &&
    Array.isArray(without) &&
    without.every(isNumber)
  );
}

function isPair(value: unknown): value is PairExtras {
  if (!isRecord(value)) return false;
  const { owner, closed, untreated, stopped, foreground } = value;
  const isOwner = (it: unknown): boolean =>
    isRecord(it) && isNumber(it.uid) && isNumber(it.gid) && isNumber(it.mode);
  return (
    (owner === undefined || isOwner(owner)) &&
    isFlag(closed) &&
    isFlag(stopped) &&
    isNumber(untreated ?? 0) &&
    isNumber(foreground ?? 0)
  );
}

function isFile(value: unknown): value is FileExtras {
  return isRecord(value) && isNumber(value.index ?? 0) && isFlag(value.hungUp);
}

function isNumber(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}

function isFlag(value: unknown): boolean {
  return value === undefined || typeof value === 'boolean';
}
