import { KCMP_SYSVSEM } from '../../abi/process.js';
import type { ImageReader } from '../../image/index.js';
import { isRecord, readJson } from '../../image/json.js';
import { SyscallError } from '../../kernel/errors.js';
import { attempt } from '../../kernel/syscall.js';
import {
  type DumpContext,
  nameOf,
  type Process,
  type Refuse,
  type Tape,
  type TaskState,
  type Thread,
} from '../contract.js';
import { nameOfSet, readSemaphoreSets, type SemaphoreSet, valuesOf } from './semaphore-sets.js';
import { correct } from './undo-correction.js';
import { type Adjustment, adjusting } from './undo-probe.js';
import { adjustmentsOf, type Found } from './undo-search.js';

/**
 * System V semaphores: the sets belong to the IPC namespace and stay where they are, but what the end of a task takes
 * back (semop(2) SEM_UNDO) belongs to the task, and its threads, who share one list. The kill after a dump takes it back,
 * as it would at any end; the restore does the operations once more. It is in a file of our own:
 */
const FILE = 'stasis-sysv-sem.json';

export interface Adjustments {
  readonly pid: number;
  readonly set: number;
  readonly key: number;
  readonly adjustments: readonly Adjustment[];
}

const found = new WeakMap<DumpContext, Adjustments[]>();

export const semaphoreUndo: TaskState = {
  name: 'semaphore undo',
  scope: 'process',
  support:
    'what the end of a process would take back of System V semaphores (SEM_UNDO); the sets themselves stay in the host’s namespace; refused: lists that processes share (CLONE_SYSVSEM), or threads have for themselves',

  // A thread with a list of its own is asked itself.
  kernel: { members: ['sysvsem.undo_list'] },

  check({ process }, refuse) {
    if (process.parent !== undefined) return;
    for (const set of readSemaphoreSets().filter(({ isUsed }) => isUsed))
      refuseUnreadable(set, process, refuse);
  },

  read(_thread, context) {
    if (!found.has(context)) found.set(context, look(context));
  },

  write(context) {
    const undo = found.get(context) ?? [];
    if (undo.length === 0) return;
    const text = `${JSON.stringify({ version: VERSION, undo }, undefined, 1)}\n`;
    context.writer.writeBytes(FILE, [Buffer.from(text)]);
  },

  restore(task, tape) {
    for (const each of adjustmentsIn(task.reader)) {
      if (each.pid !== task.pid) continue;
      checkSet(each, task.name);
      const operations = adjusting(each.adjustments);
      asked.set(tape, [...(asked.get(tape) ?? []), { index: tape.entries.length, ...each }]);
      tape.call('semop', [each.set, tape.space(operations), operations.length / 6]);
    }
  },

  explain(_task, tape, index) {
    const each = asked.get(tape)?.find((other) => other.index === index);
    if (each === undefined) return undefined;
    const set = readSemaphoreSets().find(({ id }) => id === each.set);
    const name = nameOfSet({ id: each.set, key: each.key });
    const values = set === undefined ? undefined : valuesOf(set);
    const wanted = each.adjustments.map(
      ([number, by]) => `${by} of number ${number} (now ${values?.[number]})`,
    );
    return `${name}: the process held ${wanted.join(', ')}, which somebody else has taken since`;
  },
};

const VERSION = 1;
const asked = new WeakMap<Tape, ({ readonly index: number } & Adjustments)[]>();

/** Nearly always there is nothing to look at: no set that anybody has ever used. */
function look(context: DumpContext): Adjustments[] {
  const sets = readSemaphoreSets().filter(({ isUsed }) => isUsed);
  const [root] = context.processes;
  if (sets.length === 0 || context.play === undefined || root === undefined) return [];
  for (const set of sets) refuseUnreadable(set, root, context.refuse);
  const all = adjustmentsOf(listOwners(context), sets, context);
  for (const each of all) checkOwner(each, context);
  return correct(all, context).map(({ thread, set, adjustments }) => {
    return { pid: thread.process.insidePid, set: set.id, key: set.key, adjustments };
  });
}

/** What a task would take back is found by its distance from a value: nothing is known of a set that has none for us. */
function refuseUnreadable(set: SemaphoreSet, root: Process, refuse: Refuse): void {
  try {
    valuesOf(set);
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    refuse({
      task: nameOf(root),
      object: nameOfSet(set),
      reason: `it cannot be read (${error.message}), so it is not known what somebody of the tree would undo of it`,
      help: 'run with CAP_IPC_OWNER, or remove the set (ipcrm)',
    });
  }
}

/** A thread for each list of a process: the leader, and the first of those who share another. */
function listOwners({ processes }: DumpContext): Thread[] {
  return processes
    .filter(({ state }) => state !== 'zombie')
    .flatMap(({ threads }) => {
      const owners: Thread[] = [];
      for (const thread of threads) if (!owners.some((owner) => shares(owner, thread))) owners.push(thread);
      return owners;
    });
}

function shares(a: Thread, b: Thread): boolean {
  return attempt('kcmp', [a.tid, b.tid, KCMP_SYSVSEM, 0, 0]) === 0;
}

function checkOwner({ thread, set }: Found, { processes, refuse }: DumpContext): void {
  const object = `semaphore undo (SEM_UNDO) of ${nameOfSet(set)}`;
  if (!thread.isLeader)
    refuse({
      task: nameOf(thread),
      object,
      reason: 'the thread does not share it with its process (clone(2) CLONE_SYSVSEM)',
    });
  const sharer = processes.find(
    (other: Process) => other !== thread.process && other.state !== 'zombie' && shares(thread, other.leader),
  );
  if (sharer !== undefined)
    refuse({
      task: nameOf(thread),
      object,
      reason: `it is shared with ${nameOf(sharer)} (clone(2) CLONE_SYSVSEM)`,
    });
}

/* ---------- restore ---------- */

/** The number may be that of another set by now, or of none. */
function checkSet({ set, key }: Adjustments, name: string): void {
  const now = readSemaphoreSets().find(({ id }) => id === set);
  if (now?.key !== key)
    throw new Error(
      `${name} held something of ${nameOfSet({ id: set, key })} (SEM_UNDO), which is not there any more`,
    );
}

/** Throws ImageError. */
export function adjustmentsIn(reader: ImageReader): readonly Adjustments[] {
  return readJson(reader, FILE, decode) ?? [];
}

function decode(content: unknown): readonly Adjustments[] {
  if (!isRecord(content) || content.version !== VERSION || !Array.isArray(content.undo))
    throw new Error(`is not of version ${VERSION}`);
  return content.undo.map((each: unknown, index) => {
    if (!isAdjustments(each)) throw new Error(`entry ${index} is not as it should be`);
    return each;
  });
}

function isAdjustments(value: unknown): value is Adjustments {
  if (!isRecord(value) || ![value.pid, value.set, value.key].every(Number.isSafeInteger)) return false;
  return (
    Array.isArray(value.adjustments) &&
    value.adjustments.length > 0 &&
    value.adjustments.every(
      (pair: unknown) =>
        Array.isArray(pair) &&
        (pair.length === 2 || (pair.length === 3 && isWithin(pair[2], -32768, 32767))) &&
        isWithin(pair[0], 0, 65535) &&
        isWithin(pair[1], -32768, 32767),
    )
  );
}

function isWithin(value: unknown, low: number, high: number): boolean {
  return typeof value === 'number' && Number.isInteger(value) && value >= low && value <= high;
}
