import { Tape } from '../../tape/tape.js';
import { type DumpContext, nameOf, type Played, type Thread } from '../contract.js';
import { lastUsers, nameOfSet, operationsMax, type SemaphoreSet, valuesOf } from './semaphore-sets.js';
import { type Adjustment, ask, differs, isGreater, isOutOfRange, semaphoresPerCall } from './undo-probe.js';

/** What a task would take back of a set. */
export interface Found {
  readonly thread: Thread;
  readonly set: SemaphoreSet;
  readonly values: readonly number[];
  readonly adjustments: readonly Adjustment[];
}

/** A set as the questions take it to be; others may change it meanwhile, and then the answers are worth nothing. */
interface Snapshot {
  readonly set: SemaphoreSet;
  readonly values: readonly number[];
}

const ATTEMPTS = 3;

/** Throws through `context.retry` where sets never stand still. */
export function adjustmentsOf(
  threads: readonly Thread[],
  sets: readonly SemaphoreSet[],
  context: DumpContext,
): Found[] {
  for (let attempt = 1; ; attempt++) {
    const snapshots = sets.flatMap((set) => {
      const values = valuesOf(set);
      return values === undefined ? [] : [{ set, values }];
    });
    const found = suspects(threads, snapshots, context).map((each) => search(each, context));
    const moved = snapshots.find(({ set, values }) => valuesOf(set)?.join() !== values.join());
    if (moved === undefined) return found;
    if (attempt === ATTEMPTS)
      context.retry({
        task: 'the tree',
        object: nameOfSet(moved.set),
        reason: 'its values are changed by others all the time, so that SEM_UNDO cannot be read',
      });
  }
}

interface Suspect extends Snapshot {
  readonly thread: Thread;
}

interface Question extends Snapshot {
  readonly operations: Uint8Array;
}

/** Threads with something to undo, and of which sets; one play for all of them, unless there are thousands of semaphores. */
function suspects(
  threads: readonly Thread[],
  snapshots: readonly Snapshot[],
  context: DumpContext,
): Suspect[] {
  const found = new Map<string, Suspect>();
  for (const questions of batches(snapshots.flatMap(questionsOf)))
    for (const { suspect, answer } of askAll(threads, questions, context)) {
      if (isOutOfRange(answer) === undefined) checkDenied(suspect, answer, context);
      if (isOutOfRange(answer) === true) found.set(`${suspect.thread.tid}:${suspect.set.id}`, suspect);
    }
  return [...found.values()];
}

function questionsOf({ set, values }: Snapshot): Question[] {
  const each = semaphoresPerCall(operationsMax());
  const numbered = values.map((value, number) => ({ number, value }));
  const questions: Question[] = [];
  for (let from = 0; from < numbered.length; from += each)
    questions.push({ set, values, operations: differs(numbered.slice(from, from + each)) });
  return questions;
}

/** As much as a thread's workspace has room for at once. */
function batches(questions: readonly Question[]): Question[][] {
  const all: Question[][] = [];
  let used = BATCH_BYTES;
  for (const question of questions) {
    used += question.operations.length + ENTRY_BYTES;
    if (used > BATCH_BYTES) {
      all.push([]);
      used = question.operations.length + ENTRY_BYTES;
    }
    all.at(-1)?.push(question);
  }
  return all;
}

const BATCH_BYTES = 48 * 1024;
/** More than an entry of a tape takes. */
const ENTRY_BYTES = 256;

function askAll(threads: readonly Thread[], questions: readonly Question[], context: DumpContext) {
  const tapes = new Map<Thread, Tape>();
  const asked = threads.flatMap((thread) => {
    const tape = new Tape(`semaphore undo of ${nameOf(thread)}`);
    tapes.set(thread, tape);
    return questions.map(({ set, values, operations }) => {
      tape.about(nameOfSet(set));
      return { suspect: { thread, set, values }, read: ask(tape, set.id, operations) };
    });
  });
  const played = playAll(tapes, context);
  return asked.map(({ suspect, read }) => ({ suspect, answer: read(resultOf(played, suspect.thread)) }));
}

/** Who may not use a set has nothing to undo there, unless it could before. */
function checkDenied({ thread, set }: Suspect, answer: bigint, context: DumpContext): void {
  const users = lastUsers(set);
  if (!thread.process.threads.some(({ tid }) => users.has(tid)) && !users.has(thread.process.pid)) return;
  context.refuse({
    task: nameOf(thread),
    object: nameOfSet(set),
    reason: `it has used the set, but may not any more (errno ${-answer}), so it cannot be asked for what it would undo`,
  });
}

interface Unknown {
  readonly number: number;
  /** The adjustment is one of low … high. */
  low: number;
  high: number;
}

/** Halve what each semaphore's adjustment can be, all of a set at once. */
function search({ thread, set, values }: Suspect, context: DumpContext): Found {
  const unknowns: Unknown[] = values.map((_, number) => ({ number, low: -32768, high: 32767 }));
  for (let open = unknowns; open.length > 0; open = unknowns.filter(({ low, high }) => low < high))
    for (let from = 0; from < open.length; from += QUESTIONS_MAX)
      halve(open.slice(from, from + QUESTIONS_MAX), { thread, set, values }, context);
  const adjustments = unknowns.map(({ number, low }) => [number, low] as const).filter(([, by]) => by !== 0);
  return { thread, set, values, adjustments };
}

/** Questions that a thread's workspace has room for at once. */
const QUESTIONS_MAX = 250;

function halve(unknowns: readonly Unknown[], { thread, set, values }: Suspect, context: DumpContext): void {
  const tape = new Tape(`semaphore undo of ${nameOf(thread)}`);
  tape.about(nameOfSet(set));
  const questions = unknowns.map((unknown) => {
    const middle = Math.floor((unknown.low + unknown.high) / 2);
    const { operations, outOfRangeMeans } = isGreater(unknown.number, values[unknown.number] ?? 0, middle);
    return { unknown, middle, outOfRangeMeans, read: ask(tape, set.id, operations) };
  });
  const played = resultOf(playAll(new Map([[thread, tape]]), context), thread);
  for (const { unknown, middle, outOfRangeMeans, read } of questions) {
    if ((isOutOfRange(read(played)) === true) === outOfRangeMeans) unknown.low = middle + 1;
    else unknown.high = middle;
  }
}

function playAll(tapes: ReadonlyMap<Thread, Tape>, { play }: DumpContext): ReadonlyMap<Thread, Played> {
  if (play === undefined) throw new Error('nobody can be asked');
  return play(tapes);
}

function resultOf(played: ReadonlyMap<Thread, Played>, thread: Thread): Played {
  const own = played.get(thread);
  if (own === undefined) throw new Error(`${nameOf(thread)} was not asked`);
  return own;
}
