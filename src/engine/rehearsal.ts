import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as ptrace from '../kernel/ptrace.js';
import { attempt } from '../kernel/syscall.js';
import { waitFor } from '../kernel/wait.js';
import { startSpare } from './guardian.js';
import type { CheckpointOptions, CheckpointReport } from './options.js';

/**
 * The rehearsal: the frozen window is gone through on a decoy first, so that V8 has compiled its code by the time it
 * counts. Cold code takes several times as long. The decoy is an idle stem; its image goes to a temporary directory.
 */
const WORKSPACE = { address: 0x1000_0000_0000n, size: 0x10_0000n };
const SLICE_SIZE = 0x8_0000;
const ROUNDS = 3;
const SIGKILL = 9;

let isDone = false;

/** Rehearse `dump` once in the life of this process. A failure is no harm: the dump itself will be slower, or say why. */
export function rehearse(dump: (options: CheckpointOptions) => CheckpointReport, options: CheckpointOptions): void {
  if (isDone) return;
  isDone = true;
  const decoy = startSpare(new Set(), 'the decoy', WORKSPACE, SLICE_SIZE).tid;
  const directory = mkdtempSync(join(tmpdir(), 'stasis-rehearsal-'));
  try {
    ptrace.setOptions(decoy, 0);
    ptrace.detach(decoy);
    for (let round = 0; round < ROUNDS; round++)
      dump({ ...options, ...REHEARSED, pid: decoy, directory, afterwards: options.afterwards === 'run' ? 'run' : 'stop' });
  } finally {
    attempt('kill', [decoy, SIGKILL]);
    while (waitFor(decoy).kind === 'stopped');
    rmSync(directory, { recursive: true, force: true });
  }
}

const REHEARSED = { shellJob: true, checksums: false, durable: false, overwrite: true, rehearsed: false, hooks: {} } as const;
