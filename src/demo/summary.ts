import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { CheckpointResult, PhaseTime, RestoreResult } from '../library/results.js';
import { bars, heading, mib, ms, note } from './page.js';
import type { Witness } from './witness.js';

/** Moments on the monotonic clock, the engine's own accounts, and what the program saw of it. */
export interface Times {
  readonly asked_ms: number;
  readonly killed_ms: number;
  readonly gone_ms: number;
  readonly restored_ms: number;
  readonly checkpointed: CheckpointResult;
  readonly restored: RestoreResult;
  /** The program's last beat before. */
  readonly last_ms: number;
  /** The longest time in which the program did not see the clock. */
  readonly gap_ms: number;
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

const BEFORE_FREEZE = 'look';

export function drawTimes(times: Times, witness: Witness): void {
  const { checkpointed, restored, asked_ms } = times;
  const duration = (phases: readonly PhaseTime[], ...names: string[]): number =>
    phases.reduce((sum, { name, duration_ms }) => sum + (names.includes(name) ? duration_ms : 0), 0);
  const looked =
    times.killed_ms - asked_ms - checkpointed.total_ms + duration(checkpointed.phases, BEFORE_FREEZE);
  const frozen = looked + checkpointed.freezing_ms;
  const commit = duration(checkpointed.phases, 'commit');
  heading('Time line, in ms');
  const rows: [time_ms: number, text: string][] = [
    [looked, 'looked: nothing that could not be saved'],
    [frozen, `frozen: all ${checkpointed.threads} threads stand still`],
    [times.killed_ms - asked_ms - commit, `written: ${mib(checkpointed.image_bytes)}`],
    [times.killed_ms - asked_ms, 'on the disk, and killed'],
    [times.gone_ms - asked_ms, 'gone: every pid is free'],
    [times.restored_ms - asked_ms, 'restored, and running'],
  ];
  for (const [time_ms, text] of rows) note(`${ms(time_ms).padStart(9)}  ${text}`);
  heading('Where the time went');
  bars([
    ...checkpointed.phases.map(({ name, duration_ms }) => ({
      name,
      duration_ms,
      ...(name === BEFORE_FREEZE ? { remark: 'it still runs' } : {}),
    })),
    { name: 'gone', duration_ms: times.gone_ms - times.killed_ms },
    ...restored.phases,
  ]);
  heading('What the program saw');
  note(
    `${ms(times.gap_ms)} ms between two looks at the clock, for ${mib(checkpointed.image_bytes)} in ${witness.beats} beats`,
  );
}
