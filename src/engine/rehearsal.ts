import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as ptrace from '../kernel/ptrace.js';
import { attempt } from '../kernel/syscall.js';
import { waitFor } from '../kernel/wait.js';
import { type Actor, playOne } from '../tape/play.js';
import { Tape } from '../tape/tape.js';
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
export function rehearse(
  dump: (options: CheckpointOptions) => CheckpointReport,
  options: CheckpointOptions,
): void {
  if (isDone) return;
  isDone = true;
  try {
    rehearseOn(startSpare(new Set(), 'the decoy', WORKSPACE, SLICE_SIZE), dump, options);
  } catch {
    // The dump itself meets the same, and says it of the tree, or does not.
  }
}

function rehearseOn(
  actor: Actor,
  dump: (options: CheckpointOptions) => CheckpointReport,
  options: CheckpointOptions,
): void {
  const decoy = actor.tid;
  let directory: string | undefined;
  try {
    directory = mkdtempSync(join(tmpdir(), 'stasis-rehearsal-'));
    // What this process inherited itself, a socket perhaps, could not be saved.
    const tape = new Tape('descriptors of the decoy');
    tape.call('close_range', [FIRST_UNKNOWN_FD, LAST_FD, 0]);
    playOne(actor, tape);
    ptrace.setOptions(decoy, 0);
    ptrace.detach(decoy);
    for (let round = 0; round < ROUNDS; round++)
      dump({
        ...options,
        ...REHEARSED,
        pid: decoy,
        directory,
        afterwards: options.afterwards === 'run' ? 'run' : 'stop',
      });
  } finally {
    attempt('kill', [decoy, SIGKILL]);
    while (waitFor(decoy).kind === 'stopped');
    if (directory !== undefined) rmSync(directory, { recursive: true, force: true });
  }
}

const FIRST_UNKNOWN_FD = 3;
const LAST_FD = 0xffff_ffff;

const REHEARSED = {
  shellJob: true,
  outsidePipes: true,
  linkRemap: false,
  external: [],
  checksums: false,
  durable: false,
  overwrite: true,
  rehearsed: false,
  to: undefined,
  hooks: {},
} as const;
