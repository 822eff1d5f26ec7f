import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { CheckpointResult, PhaseTime, RestoreResult } from '../library/results.js';
import { bars, heading, mib, ms, note } from './page.js';
import type { Gap } from './workload/journal.js';

/** Moments on the monotonic clock, the engine's own accounts, and what the program saw of it. */
export interface Times {
  readonly asked_ms: number;
  readonly killed_ms: number;
  readonly gone_ms: number;
  readonly restored_ms: number;
  readonly checkpointed: CheckpointResult;
  readonly restored: RestoreResult;
  /** The longest time in which the program did not see its clocks. */
  readonly gap: Gap;
}

const STASIS = fileURLToPath(new URL('../../bin/stasis', import.meta.url));

/** What `stasis inspect` says of the image. */
export async function drawImage(image: string): Promise<void> {
  if (!existsSync(STASIS)) return;
  heading(`$ stasis inspect ${image}`);
  const { stdout, stderr, status } = spawnSync(process.execPath, [STASIS, 'inspect', image], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`stasis inspect ended with status ${status}: ${stderr.trim()}`);
  note(stdout.trimEnd());
}

/** The phase of a checkpoint with which its tree stands still; all before it leave it alone. */
const FREEZE = 'freeze';
const COMMIT = 'commit';

/** Time from the first phase to the begin of the one so named. */
function startOf(name: string, phases: readonly PhaseTime[]): number {
  const before = phases.slice(
    0,
    phases.findIndex((phase) => phase.name === name),
  );
  return before.reduce((sum, { duration_ms }) => sum + duration_ms, 0);
}

export function drawTimes(times: Times): void {
  const { checkpointed, restored, asked_ms } = times;
  const { phases } = checkpointed;
  const begin = times.killed_ms - asked_ms - checkpointed.total_ms;
  const frozen = begin + startOf(FREEZE, phases);
  heading('Time line, in ms');
  const rows: [time_ms: number, text: string][] = [
    [frozen, 'looked: nothing that could not be saved'],
    [frozen + checkpointed.freezing_ms, `frozen: all ${checkpointed.threads} threads stand still`],
    [begin + startOf(COMMIT, phases), `written: ${mib(checkpointed.image_bytes)}`],
    [times.killed_ms - asked_ms, 'on the disk, and killed'],
    [times.gone_ms - asked_ms, 'gone: every pid is free'],
    [times.restored_ms - asked_ms, 'restored, and running'],
  ];
  for (const [time_ms, text] of rows) note(`${ms(time_ms).padStart(9)}  ${text}`);
  heading('Where the time went');
  note('checkpoint');
  bars([
    ...phases.map((phase, index) =>
      index < phases.findIndex(({ name }) => name === FREEZE) ? { ...phase, remark: 'it still runs' } : phase,
    ),
    { name: 'pids freed', duration_ms: times.gone_ms - times.killed_ms },
  ]);
  note('restore');
  bars(restored.phases);
  heading('What the program saw');
  note(
    `${times.gap.day_ms.toFixed(0)} ms between two looks at the clock, ${times.gap.monotonic_ms.toFixed(0)} ms by its monotonic clock`,
  );
  note(
    `every thread was stopped ${(checkpointed.stops / checkpointed.threads).toFixed(1)} times; ${mib(checkpointed.image_bytes)} were written and read`,
  );
}
