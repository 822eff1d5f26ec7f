import { errnoMessage, errnoName } from '../abi/errno.js';
import { formatArgument, SIGNATURES } from '../abi/signatures.js';
import type { Entry, Operand, Played, Tape } from './tape.js';

/** A tape as a listing in the manner of strace: `[3] fd = openat(AT_FDCWD, "/etc/passwd", O_RDONLY, 0)`. */
export function printTape(tape: Tape, played?: Played): string {
  const lines = [`# ${tape.title}`];
  let note: string | undefined;
  tape.entries.forEach((entry, index) => {
    if (entry.note !== note) lines.push(`## ${entry.note ?? ''}`);
    note = entry.note;
    lines.push(`[${index}] ${printEntry(entry, tape, played, index)}`);
  });
  return lines.join('\n');
}

/** One entry, with its answer where it was played. */
export function printEntry(entry: Entry, tape: Tape, played?: Played, index?: number): string {
  const text =
    entry.call === undefined
      ? `copy(${entry.operands.map((operand) => printOperand(operand, tape)).join(', ')})`
      : `${entry.call}(${entry.operands.map((operand, i) => printArgument(entry, operand, i, tape, played)).join(', ')})`;
  if (played === undefined || index === undefined || entry.call === undefined) return text;
  return `${text} = ${printResult(played.result({ kind: 'result', index }))}`;
}

export function printResult(result: bigint): string {
  if (result >= 0n || result < -4095n)
    return result > 0xffff_ffffn ? `0x${result.toString(16)}` : `${result}`;
  const name = errnoName(Number(-result));
  return `-1 ${name} (${errnoMessage(Number(-result))})`;
}

function printArgument(
  entry: Entry,
  operand: Operand,
  position: number,
  tape: Tape,
  played?: Played,
): string {
  const descriptor = entry.call === undefined ? undefined : SIGNATURES[entry.call]?.[position];
  if (typeof operand === 'object') {
    const path = descriptor?.kind === 'path' && operand.kind === 'space' ? tape.text(operand) : undefined;
    if (path !== undefined) return JSON.stringify(path);
    if (operand.kind === 'result' && played !== undefined) return `${played.result(operand)}`;
    return printOperand(operand, tape);
  }
  if (descriptor === undefined) return printOperand(operand, tape);
  return formatArgument(descriptor, BigInt.asUintN(64, BigInt(operand)));
}

function printOperand(operand: Operand, tape: Tape): string {
  if (typeof operand !== 'object') return `${operand}`;
  switch (operand.kind) {
    case 'result':
      return `[${operand.index}]`;
    case 'space':
      return printSpace(tape.content(operand), operand.length);
    case 'deferred':
      return operand.value === undefined ? `<${operand.name}>` : `${operand.value}`;
    case 'value':
      return typeof operand.at === 'bigint'
        ? `*0x${operand.at.toString(16)}`
        : `*${printOperand(operand.at, tape)}`;
    case 'inside':
      return `&buffer+${operand.space.offset + operand.at}`;
    case 'cell':
      return 'branch' in operand.of
        ? `&child ${operand.of.branch} [${operand.of.index}]`
        : `&[${operand.of.index}]`;
    default:
      return operand satisfies never;
  }
}

function printSpace(bytes: Uint8Array | undefined, length: number): string {
  if (bytes === undefined) return `<${length} bytes>`;
  const hex = Buffer.from(bytes.subarray(0, 24)).toString('hex');
  return `{${hex}${length > 24 ? '…' : ''}}`;
}
