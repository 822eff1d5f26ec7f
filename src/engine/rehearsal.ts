import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AT_FDCWD, O_RDONLY } from '../abi/fcntl.js';
import * as C from '../abi/process.js';
import { SIGKILL } from '../abi/signal.js';
import { listDescriptors } from '../kernel/procfs/descriptors.js';
import { readTree } from '../kernel/procfs/tree.js';
import * as ptrace from '../kernel/ptrace.js';
import { NO_SYSCALL } from '../kernel/registers.js';
import { attempt } from '../kernel/syscall.js';
import { isEventStop, waitFor } from '../kernel/wait.js';
import { LOOP_IDLE } from '../machine/x86_64.js';
import { cloneArguments } from '../tape/clone.js';
import { type Actor, playOne } from '../tape/play.js';
import { type Result, Tape } from '../tape/tape.js';
import { startSpare } from './guardian.js';
import type { CheckpointOptions, CheckpointReport } from './options.js';

/**
 * The rehearsal: the frozen window is gone through on a decoy first, so that V8 has compiled its code by the time it
 * counts. Cold code takes several times as long. The decoy is an idle stem; its image goes to a temporary directory. Where
 * the tree has many threads or descriptors it has some too: what is done for each of them is what counts then.
 */
const WORKSPACE = { address: 0x1000_0000_0000n, size: 0x10_0000n };
const SLICE_SIZE = 0x8_0000;
const ROUNDS = 3;

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
    furnish(actor, options.pid);
    idle(actor, decoy);
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

/** So many of what the tree has more of make the code of it warm. */
const THREADS = 8;
const DESCRIPTORS = 48;
const MANY = 20;

/** Give the decoy threads and descriptors like those of the tree below `root`, though fewer. */
function furnish(actor: Actor, root: number): void {
  const hasThreads = readTree(root).some(({ tids }) => tids.length > MANY);
  const hasDescriptors = listDescriptors(root).length > MANY;
  const tape = new Tape('descriptors and threads of the decoy');
  // What this process inherited itself, a socket perhaps, could not be saved.
  tape.call('close_range', [FIRST_UNKNOWN_FD, LAST_FD, 0]);
  const file = tape.string(process.execPath);
  for (let n = 0; hasDescriptors && n < DESCRIPTORS; n++) tape.call('openat', [AT_FDCWD, file, O_RDONLY, 0]);
  const threads = hasThreads ? Array.from({ length: THREADS }, () => cloneThread(tape)) : [];
  const played = playOne(actor, tape);
  for (const thread of threads) {
    const tid = Number(played.result(thread));
    while (!isEventStop(waitFor(tid)));
    idle(actor, tid);
  }
}

/** Let go of a task of the decoy so that it sleeps; at the end of its tape it would exit. */
function idle({ base, slice }: Actor, tid: number): void {
  // SAFETY: the loop's idle part needs no register, and no stack.
  ptrace.setRegisters(tid, { ...base, ip: slice.code + BigInt(LOOP_IDLE), orig_ax: NO_SYSCALL });
  ptrace.setOptions(tid, 0);
  ptrace.detach(tid);
}

function cloneThread(tape: Tape): Result {
  return tape.call('clone3', cloneArguments(tape, THREAD_FLAGS));
}

const THREAD_FLAGS =
  C.CLONE_VM | C.CLONE_FS | C.CLONE_FILES | C.CLONE_SIGHAND | C.CLONE_THREAD | C.CLONE_PTRACE;

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
