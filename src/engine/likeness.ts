import { TaskMembers } from '../kernel/bpf/tasks.js';
import { readTree } from '../kernel/procfs/tree.js';
import type { Process, TaskState, Thread } from '../resources/contract.js';
import { taskStates } from './registry.js';

/**
 * Which threads of a process are alike: they would answer the same to all questions, so that one of them is asked, and
 * the others need not be borrowed. The kernel's own memory tells. Where it may not be read, everybody is asked.
 */
export class Likeness implements Disposable {
  readonly #members: TaskMembers;
  readonly #values = new Map<Thread, readonly bigint[]>();

  private constructor(members: TaskMembers) {
    this.#members = members;
  }

  /** Undefined where no process has many threads, or the kernel does not show what is wanted. */
  static of(root: number): Likeness | undefined {
    if (!readTree(root).some(({ tids }) => tids.length >= MANY)) return undefined;
    try {
      return new Likeness(new TaskMembers(PLACES.flatMap(({ members }) => members)));
    } catch {
      return undefined;
    }
  }

  /** Frozen: who answers for whom; the leader for nobody else. `keyOf` tells threads apart whose questions differ. */
  speakers({ pid, threads }: Process, keyOf: (thread: Thread) => string): ReadonlyMap<Thread, Thread> {
    if (threads.length < MANY) return new Map();
    const seen = this.#members.read(pid);
    const speakers = new Map<string, Thread>();
    const answers = new Map<Thread, Thread>();
    for (const thread of threads) {
      const values = seen.get(thread.tid);
      if (values === undefined || thread.isLeader) continue;
      this.#values.set(thread, values);
      const deciding = DECIDING.map((at) => values[at]);
      const key = `${deciding.join()} ${keyOf(thread)}`;
      const speaker = speakers.get(key);
      if (speaker === undefined) speakers.set(key, thread);
      else answers.set(thread, speaker);
    }
    return answers;
  }

  /** Of a thread that is not asked: what a state reads of its own members. */
  read({ kernel }: TaskState, thread: Thread): void {
    const place = PLACES.find(({ of }) => of === kernel);
    const values = this.#values.get(thread);
    if (place === undefined || values === undefined)
      throw new Error(`nothing was read of thread ${thread.tid}`);
    kernel?.read?.(values.slice(place.at, place.at + place.members.length), thread);
  }

  [Symbol.dispose](): void {
    this.#members[Symbol.dispose]();
  }
}

/** Threads of a process; with fewer, nothing is gained. */
const MANY = 8;

/** Whose members lie where among all values. */
const PLACES = placesOf(taskStates);
const DECIDING = PLACES.flatMap(({ of, at, members }) =>
  of.read === undefined ? members.map((_, index) => at + index) : [],
);

interface Place {
  readonly of: NonNullable<TaskState['kernel']>;
  readonly members: readonly string[];
  readonly at: number;
}

function placesOf(states: readonly TaskState[]): Place[] {
  const places: Place[] = [];
  let at = 0;
  for (const { kernel } of states) {
    if (kernel === undefined) continue;
    places.push({ of: kernel, members: kernel.members, at });
    at += kernel.members.length;
  }
  return places;
}
