import type { DumpContext, Process, TaskState, Thread } from '../resources/contract.js';
import { dumpRegisters, inquire } from '../resources/process/index.js';
import { type Play, play } from '../tape/play.js';
import { type Played, Tape } from '../tape/tape.js';
import type { Loan } from './lend.js';
import { memory, taskStates } from './registry.js';

/** A tape of questions for all threads of which the same is asked, with the readers of its answers. */
interface Questions {
  readonly tape: Tape;
  readonly urgent: readonly Reader[];
  readonly others: readonly Reader[];
  readonly memory: ((played: Played, process: Process) => void) | undefined;
}

interface Reader {
  readonly state: TaskState;
  readonly read: (played: Played, thread: Thread, context: DumpContext) => void;
}

/**
 * Read every thread from outside, then play the questions on all who are borrowed, at once. What has to be known while the
 * tree is frozen is read out of the answers at once; the rest by what is returned, which may be called after the thaw.
 */
export function ask(loan: Loan, context: DumpContext): () => void {
  const known = new Map<string, Questions>();
  const asked = [...loan.actors].map(([thread, actor]) => {
    const key = keyOf(thread);
    const questions = known.get(key) ?? questionsFor(thread);
    known.set(key, questions);
    loan.vet(thread, questions.tape);
    return { thread, actor, questions };
  });
  const all = play(asked.map(({ actor, questions }): Play => ({ actor, tape: questions.tape })));
  const answers = new Map<Thread, Answer>();
  asked.forEach(({ thread, questions }, index) => {
    const played = all[index];
    if (played !== undefined) answers.set(thread, { questions, played });
  });
  const readInquiries = inquire(taskStates, loan.threads);
  for (const thread of loan.threads) {
    for (const state of statesOf(thread)) state.read?.(thread, context);
    const answer = answers.get(thread);
    if (answer === undefined) continue;
    answer.questions.memory?.(answer.played, thread.process);
    for (const { read } of answer.questions.urgent) read(answer.played, thread, context);
  }
  return () => {
    readInquiries(context);
    for (const thread of loan.threads) {
      dumpRegisters(thread);
      for (const state of statesOf(thread)) state.note?.(thread, context);
      const speaker = loan.speakerOf(thread);
      const answer = answers.get(speaker);
      for (const { state, read } of answer?.questions.others ?? [])
        if (speaker !== thread && state.kernel?.read !== undefined) loan.likeness?.read(state, thread);
        else if (answer !== undefined) read(answer.played, thread, context);
    }
  };
}

interface Answer {
  readonly questions: Questions;
  readonly played: Played;
}

function* statesOf(thread: Thread): Iterable<TaskState> {
  for (const state of taskStates) if (state.scope === 'thread' || thread.isLeader) yield state;
}

/** Threads with the same are asked the same. */
export function keyOf(thread: Thread): string {
  let key = thread.isLeader ? `leader ${memory.variant(thread.process)}` : 'thread';
  for (const state of statesOf(thread)) if (state.variant !== undefined) key += `|${state.variant(thread)}`;
  return key;
}

function questionsFor(thread: Thread): Questions {
  const tape = new Tape(thread.isLeader ? 'state of a process' : 'state of a thread');
  const urgent: Reader[] = [];
  const others: Reader[] = [];
  for (const state of statesOf(thread)) {
    tape.about(state.name);
    const read = state.ask?.(tape, thread);
    if (read !== undefined) (state.urgent === true ? urgent : others).push({ state, read });
  }
  return { tape, urgent, others, memory: thread.isLeader ? memory.ask(tape, thread.process) : undefined };
}

/** Questions of a resource's own, while the tree is borrowed: `DumpContext.play`. */
export function playOn(
  loan: Loan | undefined,
  tapes: ReadonlyMap<Thread, Tape>,
): ReadonlyMap<Thread, Played> {
  if (loan === undefined) throw new Error('nobody is borrowed yet');
  const threads = [...tapes];
  const plays = threads.map(([thread, tape]) => {
    loan.vet(thread, tape);
    return { actor: loan.actorOf(thread), tape };
  });
  const played = play(plays);
  return new Map(threads.map(([thread], index) => [thread, played[index] as Played]));
}
