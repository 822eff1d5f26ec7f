import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Which trials of the fault campaigns a full run makes. A full run takes hours; so it can be cut down, spread over several
 * machines, repeated at one place, and taken up again where it ended:
 *
 * STASIS_FAULT_ONLY     pattern of the names of those campaigns to do
 * STASIS_FAULT_STRIDE   only every so-many-th kernel call, and as many times fewer instants
 * STASIS_FAULT_AT       only these places: `120`, `100-180`, `ask`, `ask+7`, `ask+5-9` (calls of a phase, counted from its begin)
 * STASIS_FAULT_REPEAT   so many times each
 * STASIS_FAULT_SHARD    `2/5` is the second fifth of the trials
 * STASIS_FAULT_STATE    directory where trials that were made are noted, and not made again; of one build
 * STASIS_FAULT_MINUTES  no trial begins after that
 */
export interface Selection {
  readonly only: RegExp;
  readonly stride: number;
  readonly range: Range | undefined;
  readonly repeat: number;
  readonly shard: { readonly index: number; readonly count: number };
  readonly state: string | undefined;
  /** Milliseconds since the epoch. */
  readonly deadline: number;
}

/** Of kernel calls: since the first touch, or since a phase began. `to` is the last. */
export interface Range {
  readonly phase: string | undefined;
  readonly from: number;
  readonly to: number;
}

/** Throws RangeError for what is not of the forms above. */
export function selectionOf(environment: NodeJS.ProcessEnv): Selection {
  const number = (name: string, otherwise: number): number => {
    const value = Number(environment[name] ?? otherwise);
    if (Number.isNaN(value) || value <= 0) throw new RangeError(`${name}: ${environment[name]} is no number`);
    return value;
  };
  const { STASIS_FAULT_AT: at, STASIS_FAULT_SHARD: shard = '1/1' } = environment;
  const [, index, count] = /^(\d+)\/(\d+)$/.exec(shard) ?? [];
  if (index === undefined) throw new RangeError(`STASIS_FAULT_SHARD: ${shard} is not like 2/5`);
  return {
    only: new RegExp(environment.STASIS_FAULT_ONLY ?? ''),
    stride: number('STASIS_FAULT_STRIDE', 1),
    range: at === undefined ? undefined : rangeOf(at),
    repeat: number('STASIS_FAULT_REPEAT', 1),
    shard: { index: Number(index) - 1, count: Number(count) },
    state: environment.STASIS_FAULT_STATE,
    deadline: Date.now() + number('STASIS_FAULT_MINUTES', Number.POSITIVE_INFINITY) * 60_000,
  };
}

export function rangeOf(text: string): Range {
  const [, phase, from, to] = /^(?:([a-z][a-z ]*)\+?)?(?:(\d+)(?:-(\d+))?)?$/.exec(text) ?? [];
  if (text === '' || (phase === undefined && from === undefined))
    throw new RangeError(`STASIS_FAULT_AT: ${text} is not like 120, 100-180, ask, ask+7 or ask+5-9`);
  return {
    phase,
    from: Number(from ?? 0),
    to: Number(to ?? from ?? Number.POSITIVE_INFINITY),
  };
}

/** What of one campaign has been done, in this run and in those before it that kept their state in the same directory. */
export class Journal {
  readonly #file: string | undefined;
  readonly #done = new Map<string, number>();

  constructor(directory: string | undefined, name: string) {
    if (directory === undefined) return;
    mkdirSync(directory, { recursive: true });
    this.#file = join(directory, `${name.replaceAll(/[^a-z0-9]+/gi, '-')}.jsonl`);
    if (!existsSync(this.#file)) return;
    for (const line of readFileSync(this.#file, 'utf8').split('\n')) {
      // A run that was killed leaves half a line.
      const key = line.endsWith('}') ? (JSON.parse(line) as { key: string }).key : undefined;
      if (key !== undefined) this.#done.set(key, this.times(key) + 1);
    }
  }

  get size(): number {
    return [...this.#done.values()].reduce((sum, times) => sum + times, 0);
  }

  times(key: string): number {
    return this.#done.get(key) ?? 0;
  }

  add(key: string, harm: readonly string[]): void {
    this.#done.set(key, this.times(key) + 1);
    const entry = harm.length === 0 ? { key } : { key, harm: harm.slice(0, 20) };
    if (this.#file !== undefined) appendFileSync(this.#file, `${JSON.stringify(entry)}\n`);
  }
}
