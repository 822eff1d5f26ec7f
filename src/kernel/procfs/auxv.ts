/** /proc/PID/auxv: proc_pid_auxv(5). Pairs of 64-bit words, AT_NULL (0, 0) last. */
import { ProcfsError } from './error.js';
import { readBytes, taskPath, type Where } from './read.js';

export interface AuxEntry {
  /** AT_*. */
  readonly type: bigint;
  readonly value: bigint;
}

/** The words as the kernel keeps them, what follows AT_NULL included: PR_SET_MM_MAP wants them all. */
export function parseAuxv(bytes: Buffer, path = '/proc/PID/auxv'): BigUint64Array {
  if (bytes.length % 16 !== 0) throw new ProcfsError(path, '', `${bytes.length} bytes are no pairs of words`);
  const words = new BigUint64Array(bytes.length / 8);
  for (let index = 0; index < words.length; index++) words[index] = bytes.readBigUInt64LE(index * 8);
  return words;
}

/** The entries before AT_NULL. */
export function auxEntries(words: BigUint64Array): AuxEntry[] {
  const entries: AuxEntry[] = [];
  for (let index = 0; index + 1 < words.length; index += 2) {
    const type = words[index] ?? 0n;
    if (type === 0n) break;
    entries.push({ type, value: words[index + 1] ?? 0n });
  }
  return entries;
}

export function readAuxv(pid: number, where: Where = {}): BigUint64Array {
  const path = taskPath(pid, 'auxv', where);
  return parseAuxv(readBytes(path), path);
}
