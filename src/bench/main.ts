import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { arch, cpus, release, tmpdir, totalmem } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ArgumentError, type Arguments, parseArguments, USAGE } from './arguments.js';
import type { Contestant } from './criu.js';
import { enter } from './enter.js';
import { type Measured, measure, type Profile, profile } from './rounds.js';
import { mediansOf, type Outcome, profileOf, tableOf } from './table.js';
import type { Workload } from './workloads.js';

/**
 * `npm run bench`: how long a program stands still. Machines are noisy, so contestants take turns, and only ratios of
 * medians of one run mean anything. All of it runs in a pid namespace of its own.
 */
const INSIDE = 'STASIS_BENCH_INSIDE';
const OURS: Contestant = {
  name: 'stasis',
  file: fileURLToPath(new URL('../../libexec/criu', import.meta.url)),
};

function main(args: readonly string[]): number | Promise<number> {
  try {
    const parsed = parseArguments(args);
    if (process.env[INSIDE] !== undefined) return bench(parsed);
    if (process.geteuid?.() !== 0) throw new ArgumentError('the bench needs root');
    return enter([], INSIDE, fileURLToPath(import.meta.url), args);
  } catch (error) {
    if (!(error instanceof ArgumentError)) throw error;
    process.stderr.write(`${error.message}\n${USAGE}\n`);
    return 2;
  }
}

async function bench(args: Arguments): Promise<number> {
  const contestants = [
    OURS,
    ...(args.peer === undefined ? [] : [{ name: 'peer', file: resolve(args.peer) }]),
  ];
  const directory = mkdtempSync(join(args.directory ?? tmpdir(), 'stasis-bench-'));
  const outcomes: Outcome[] = [];
  try {
    for (const workload of args.workloads) {
      const outcome = await compete(workload, contestants, args.rounds, directory);
      outcomes.push(outcome);
      process.stdout.write(`\n${tableOf(outcome)}\n${profileOf(outcome)}\n`);
      if (args.json !== undefined)
        writeFileSync(args.json, `${JSON.stringify(report(args, outcomes), null, 2)}\n`);
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
  return 0;
}

/** Rounds in turns, a profile of ours after each. */
async function compete(
  workload: Workload,
  contestants: readonly Contestant[],
  rounds: number,
  directory: string,
): Promise<Outcome> {
  const measured: Record<string, Measured[]> = Object.fromEntries(contestants.map(({ name }) => [name, []]));
  const profiles: Profile[] = [];
  for (let round = 1; round <= rounds; round++) {
    process.stderr.write(`${workload.what}: round ${round} of ${rounds}\n`);
    // Whoever comes first has the colder caches: take turns in that as well.
    const order = round % 2 === 1 ? contestants : [...contestants].reverse();
    for (const contestant of order)
      measured[contestant.name]?.push(await measure(contestant, workload, directory));
    profiles.push(await profile(workload, directory));
  }
  return { workload, rounds: measured, profiles };
}

function report({ peer, rounds }: Arguments, outcomes: readonly Outcome[]): unknown {
  return {
    date: new Date().toISOString(),
    host: {
      kernel: release(),
      arch: arch(),
      cpus: cpus().length,
      cpu: cpus()[0]?.model,
      memory_bytes: totalmem(),
      node: process.version,
    },
    peer: peer ?? null,
    rounds,
    outcomes: outcomes.map(({ workload, rounds: all, profiles }) => ({
      workload,
      medians: Object.fromEntries(Object.entries(all).map(([name, measured]) => [name, mediansOf(measured)])),
      rounds: all,
      profiles,
    })),
  };
}

process.exit(await main(process.argv.slice(2)));
