import type { PhaseTime } from '../library/results.js';
import { MEASURES, type Measured, type Profile } from './rounds.js';
import { median, medians } from './statistics.js';
import type { Workload } from './workloads.js';

/** What came out of a workload: rounds by contestant, in their order. */
export interface Outcome {
  readonly workload: Workload;
  readonly rounds: Readonly<Record<string, readonly Measured[]>>;
  readonly profiles: readonly Profile[];
}

type Medians = Record<keyof Measured, number>;

export function mediansOf(rounds: readonly Measured[]): Medians {
  return medians(MEASURES, rounds);
}

const LABELS: Readonly<Record<keyof Measured, string>> = {
  pause: 'pause, as the program sees it',
  frozen: 'frozen, as the tool says',
  dump: 'dump, the whole command',
  gap: 'gap over dump, kill, restore',
  restore: 'restore, the whole command',
  restore_engine: 'restore without start-up',
  image_bytes: 'image',
};

const MIB = 2 ** 20;

function show(measure: keyof Measured, value: number): string {
  return measure === 'image_bytes' ? `${(value / MIB).toFixed(1)} MiB` : `${value.toFixed(1)} ms`;
}

/** A table of one workload: a row a measure, a column a contestant, and the ratio of the first to the second. */
export function tableOf({ workload, rounds }: Outcome): string {
  const names = Object.keys(rounds);
  const columns = names.map((name) => mediansOf(rounds[name] ?? []));
  const rows = MEASURES.map((measure) => {
    const values = columns.map((column) => column[measure]);
    const [ours = Number.NaN, theirs] = values;
    const ratio = theirs === undefined ? [] : [`${(ours / theirs).toFixed(2)} ×`];
    return [LABELS[measure], ...values.map((value) => show(measure, value)), ...ratio];
  });
  return align([[workload.what, ...names, ...(names.length > 1 ? ['ratio'] : [])], ...rows]);
}

/** Phases of our dump and restore, and how often tasks were stopped. */
export function profileOf({ profiles }: Outcome): string {
  const [first] = profiles;
  if (first === undefined) return '';
  const stops = median(profiles.map((profile) => profile.stops / profile.threads));
  const dump = phasesOf(profiles.map(({ phases }) => phases));
  const restore = phasesOf(profiles.map(({ restore_phases }) => restore_phases));
  return `dump, ms: ${dump}; ${stops.toFixed(1)} stops a thread\nrestore, ms: ${restore}`;
}

/** The medians of runs with the same phases. */
function phasesOf(runs: readonly (readonly PhaseTime[])[]): string {
  const names = runs[0]?.map(({ name }) => name) ?? [];
  return names
    .map(
      (name, index) =>
        `${name} ${median(runs.map((run) => run[index]?.duration_ms ?? Number.NaN)).toFixed(1)}`,
    )
    .join(', ');
}

function align(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map((row) =>
      row
        .map((cell, column) =>
          column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart((widths[column] ?? 0) + 2),
        )
        .join(''),
    )
    .join('\n');
}
