import { PR_SET_VMA, PR_SET_VMA_ANON_NAME } from '../../abi/prctl.js';
import { isRecord, readJson } from '../../image/json.js';
import type { ImageReader } from '../../image/reader.js';
import type { ImageWriter } from '../../image/writer.js';
import type { Tape } from '../../tape/tape.js';
import type { ProcessImage } from '../contract.js';
import type { Vma } from './vma.js';

/**
 * What the kernel keeps of a mapping and CRIU's image has no field for: the names of anonymous memory
 * (PR_SET_VMA_ANON_NAME) and seals (mseal(2)). Only written where there is any.
 */
interface Extra {
  /** Hexadecimal. */
  readonly start: string;
  readonly end: string;
  readonly name?: string;
  readonly sealed?: boolean;
}

function fileOf(pid: number): string {
  return `stasis-mm-${pid}.json`;
}

const NAME = /^\[anon(?:_shmem)?:(.*)\]$/s;

function extraOf({ mapping }: Vma): Extra | undefined {
  const name = NAME.exec(mapping.path)?.[1];
  const sealed = mapping.vmFlags.includes('sl');
  if (name === undefined && !sealed) return undefined;
  const range = { start: mapping.start.toString(16), end: mapping.end.toString(16) };
  return { ...range, ...(name === undefined ? {} : { name }), ...(sealed ? { sealed } : {}) };
}

export function writeExtras(pid: number, vmas: readonly Vma[], writer: ImageWriter): void {
  const extras = vmas.map(extraOf).filter((extra) => extra !== undefined);
  if (extras.length === 0) return;
  writer.writeBytes(fileOf(pid), [Buffer.from(`${JSON.stringify(extras, undefined, 1)}\n`)]);
}

function readExtras(reader: ImageReader, pid: number): Extra[] {
  return readJson(reader, fileOf(pid), decode) ?? [];
}

function decode(content: unknown): Extra[] {
  if (!Array.isArray(content)) throw new Error('is no list');
  return content.map(parseExtra);
}

function parseExtra(item: unknown): Extra {
  const { start, end, name, sealed } = isRecord(item) ? item : {};
  const isAddress = (value: unknown): value is string =>
    typeof value === 'string' && /^[0-9a-f]+$/.test(value);
  if (!isAddress(start) || !isAddress(end)) throw new Error('has a mapping without a range');
  return { start, end, ...(typeof name === 'string' ? { name } : {}), sealed: sealed === true };
}

/** The last thing done to an address space: what is sealed cannot be changed any more. */
export function restoreExtras({ reader, pid }: ProcessImage, tape: Tape): void {
  tape.about('names and seals of mappings');
  for (const extra of readExtras(reader, pid)) {
    const start = BigInt(`0x${extra.start}`);
    const length = BigInt(`0x${extra.end}`) - start;
    // A kernel without such names (CONFIG_ANON_VMA_NAME) loses nothing but them.
    if (extra.name !== undefined)
      tape.call('prctl', [PR_SET_VMA, PR_SET_VMA_ANON_NAME, start, length, tape.string(extra.name)], 'any');
    if (extra.sealed === true) tape.call('mseal', [start, length, 0]);
  }
}
