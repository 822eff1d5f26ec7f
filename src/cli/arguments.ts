import { InvalidArgumentError } from 'commander';

/** Values of options, read once. */

export function parsePid(text: string): number {
  const pid = Number(text);
  if (!Number.isInteger(pid) || pid <= 0) throw new InvalidArgumentError('not a process id');
  return pid;
}

export function parseSeconds(text: string): number {
  const seconds = Number(text);
  if (!(seconds > 0)) throw new InvalidArgumentError('not a number of seconds');
  return seconds;
}

const UNITS: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };

/** `8M` in bytes. */
export function parseBytes(text: string): number {
  const match = /^(\d+)([KMG]?)$/.exec(text);
  const unit = UNITS[match?.[2] ?? '?'];
  if (match === null || unit === undefined) throw new InvalidArgumentError('not a size such as 512K or 8M');
  return Number(match[1]) * unit;
}

export function collect(text: string, before: readonly string[]): string[] {
  return [...before, text];
}

/** `fd[N]:KEY`, as criu has it. */
export function collectInherited(
  text: string,
  before: Readonly<Record<string, number>>,
): Record<string, number> {
  const match = /^fd\[(\d+)\]:(.+)$/s.exec(text);
  if (match === null) throw new InvalidArgumentError('not of the form fd[NUMBER]:KEY');
  return { ...before, [match[2] ?? '']: Number(match[1]) };
}
