import { availableParallelism } from 'node:os';
import { MADV_POPULATE_WRITE, PAGE_SIZE } from '../../abi/mman.js';
import { PR_SET_PDEATHSIG } from '../../abi/prctl.js';
import { __WALL, CLONE_FILES, CLONE_PARENT_SETTID, CLONE_VM, P_PID, WEXITED } from '../../abi/process.js';
import { SIGKILL } from '../../abi/signal.js';
import { cloneArguments } from '../../tape/clone.js';
import { goIfEqual } from '../../tape/logic.js';
import type { Branch, BranchResult, Cell, Result, Space, Tape } from '../../tape/tape.js';
import { type Descriptors, partOf, type Reading, type Run, readingsOf, readRunsTo } from './runs.js';

/**
 * Most of what it costs to read memory is that the kernel finds and clears its pages, which several tasks can do at a time.
 * So a process has helpers for its own: tasks that share its memory, read a part of it each, and are gone before it goes on.
 */

/** Less than this is read in the time that it takes to make a helper. */
const SHARE_BYTES = 2 << 20;
const LEAST_BYTES = 2 * SHARE_BYTES;
const READERS_MAX = 8;
/** The room that a tape has for entries is bounded, and so is what is gained where pages lie scattered. */
const RUNS_MAX = 32 * 1024;

/** What one task reads, and how long a run is that is worth a call of its own. */
interface Share {
  readonly runs: readonly Run[];
  readonly readings: readonly Reading[];
  readonly long_bytes: number;
}

/** A call that has been made, and where its answer is. */
interface Attempt {
  readonly reading: Reading;
  readonly result: Cell;
}

/**
 * As `readRunsTo`, by several tasks at a time, for a tape of process `pid` that plays while no other task of the tree is
 * being born: a helper may get any id. What one of them could not read, for whatever reason, is read again when all
 * helpers are gone, so that nothing fails as long as there are any.
 */
export function readTogether(
  tape: Tape,
  pid: number,
  runs: Iterable<Run>,
  descriptors: Descriptors,
  readers = availableParallelism(),
): void {
  const parts = descriptors.addresses === undefined ? partsOf(runs, readers) : undefined;
  if (parts === undefined) {
    readRunsTo(tape, runs, descriptors);
    return;
  }
  const long_bytes = Math.max(64 << 10, Math.floor(parts.flat().reduce(addLength, 0) / 4096));
  // All descriptors are there before the first helper is, which shares them.
  const shares = parts.map((part) => ({
    runs: part,
    readings: [...readingsOf(tape, part, descriptors)],
    long_bytes,
  }));
  const [own, ...others] = shares;
  const helpers = others.map((share) => help(tape, pid, share));
  const attempts = own === undefined ? [] : read(tape, own);
  for (const { id } of helpers) collect(tape, id);
  for (const { reading, result } of [...attempts, ...helpers.flatMap((helper) => helper.attempts)]) {
    const isRead = tape.label();
    goIfEqual(tape, result, reading.bytes, isRead);
    tape.call('preadv', reading.operands, reading.bytes);
    tape.place(isRead);
  }
}

/** `id` is where the kernel writes the helper's id before either runs. */
function help(tape: Tape, pid: number, share: Share): { id: Space; attempts: Attempt[] } {
  const id = tape.space(16);
  const attempts: Attempt[] = [];
  const flags = CLONE_VM | CLONE_FILES | CLONE_PARENT_SETTID;
  tape.clone(
    cloneArguments(tape, flags, { parentTid: id }),
    (helper) => {
      helper.call('prctl', [PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0], 'any');
      // Whose parent died before that has another one, and ends here: there is no tape left that it could disturb.
      helper.call('getppid', [], pid);
      attempts.push(...read(helper, share));
    },
    'any',
  );
  return { id, attempts };
}

/** A fault for every page, met in the midst of copying, costs more than to have the kernel find them all (5.14). */
function read(
  on: { call(...parameters: Parameters<Branch['call']>): Result | BranchResult },
  { runs, readings, long_bytes }: Share,
): Attempt[] {
  for (const { start, end } of runs)
    if (end - start >= long_bytes) on.call('madvise', [start, end - start, MADV_POPULATE_WRITE], 'any');
  return readings.map((reading) => ({
    reading,
    result: { kind: 'cell', of: on.call('preadv', reading.operands, 'any') },
  }));
}

/** Wait for a helper's end, if it was made. */
function collect(tape: Tape, id: Space): void {
  const none = tape.label();
  goIfEqual(tape, id, 0, none);
  const pid = { kind: 'value', at: { kind: 'inside', space: id, at: 0 } } as const;
  tape.call('waitid', [P_PID, pid, 0, WEXITED | __WALL, 0], 0);
  tape.place(none);
}

/** In the same order, about as many bytes for each reader; undefined where that is not worth it. */
export function partsOf(runs: Iterable<Run>, readers: number): Run[][] | undefined {
  const all: Run[] = [];
  for (const run of runs) if (all.push(run) > RUNS_MAX) return undefined;
  const total = all.reduce(addLength, 0);
  if (total < LEAST_BYTES) return undefined;
  const count = Math.min(readers, READERS_MAX, Math.floor(total / SHARE_BYTES));
  const size = Math.ceil(total / count / PAGE_SIZE) * PAGE_SIZE;
  const parts: Run[][] = [[]];
  let room = size;
  for (const run of all)
    for (let at = run.start; at < run.end; ) {
      if (room === 0) {
        parts.push([]);
        room = size;
      }
      const end = Math.min(run.end, at + room);
      parts.at(-1)?.push(partOf(run, at, end));
      room -= end - at;
      at = end;
    }
  return parts;
}

function addLength(sum: number, { start, end }: Run): number {
  return sum + end - start;
}
