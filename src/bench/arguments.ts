import { parseArgs } from 'node:util';
import { WORKLOADS, type Workload } from './workloads.js';

export interface Arguments {
  /** Another executable that takes the arguments of `criu`. */
  readonly peer: string | undefined;
  readonly rounds: number;
  /** Where the results go as JSON. */
  readonly json: string | undefined;
  /** Where subjects and images are kept meanwhile. */
  readonly directory: string | undefined;
  readonly workloads: readonly Workload[];
}

/** Arguments that make no sense, in words. */
export class ArgumentError extends Error {}

export const USAGE = `npm run bench -- [--peer CRIU] [--rounds N] [--json FILE] [--directory DIR] [NAME…]
names: ${WORKLOADS.map(({ name }) => name).join(', ')}`;

const ROUNDS = 5;

export function parseArguments(args: readonly string[]): Arguments {
  const options = {
    peer: { type: 'string' },
    rounds: { type: 'string', default: String(ROUNDS) },
    json: { type: 'string' },
    directory: { type: 'string' },
  } as const;
  const { values, positionals } = parse(args, options);
  const rounds = Number(values.rounds);
  if (!Number.isInteger(rounds) || rounds < 1)
    throw new ArgumentError(`--rounds ${values.rounds}: not a number of rounds`);
  const unknown = positionals.filter((name) => !WORKLOADS.some((workload) => workload.name === name));
  if (unknown.length > 0) throw new ArgumentError(`unknown workload: ${unknown.join(', ')}`);
  return {
    peer: values.peer,
    rounds,
    json: values.json,
    directory: values.directory,
    workloads: WORKLOADS.filter(({ name }) => positionals.length === 0 || positionals.includes(name)),
  };
}

function parse<T extends Readonly<Record<string, { type: 'string'; default?: string }>>>(
  args: readonly string[],
  options: T,
) {
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (error) {
    throw new ArgumentError(error instanceof Error ? error.message : String(error), { cause: error });
  }
}
