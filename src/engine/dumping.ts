import { randomUUID } from 'node:crypto';
import type { ImageWriter } from '../image/index.js';
import { insistOnAll } from '../kernel/insist.js';
import type {
  Actor,
  DumpContext,
  Kept,
  MemoryReport,
  PendingMemory,
  Process,
} from '../resources/contract.js';
import { DescriptorCollector, type DescriptorSurvey } from '../resources/file/index.js';
import { MemfdCollector } from '../resources/memory/index.js';
import type { NetworkPlan } from '../resources/namespace/index.js';
import { dumpExtendedRegisters } from '../resources/process/index.js';
import { playOn } from './ask.js';
import { headlessRefusal } from './check.js';
import type { Commitment } from './commitment.js';
import type { Copies } from './copies.js';
import { undoDuty } from './duties.js';
import { PassingError, UnsupportedError } from './errors.js';
import type { Guardian } from './guardian.js';
import { Identities } from './identity.js';
import type { Loan } from './lend.js';
import type { CheckpointOptions } from './options.js';
import { fileKinds, memory, network, networkLock, taskStates } from './registry.js';
import { writeTree } from './tree-image.js';

export interface Given {
  readonly writer: ImageWriter;
  readonly processes: readonly Process[];
  readonly options: CheckpointOptions;
  readonly guardian: Guardian;
  readonly commitment: Commitment;
  readonly survey: DescriptorSurvey;
  readonly plan: NetworkPlan;
}

/** What is gathered while the tree is frozen; what was made for it outside of the image goes again if there is none. */
export class Dumping implements Disposable {
  isCommitted = false;
  readonly context: DumpContext;
  readonly files: DescriptorCollector;
  readonly identities: Identities;
  /** Who can be asked by tapes, while they are borrowed. */
  loan: Loan | undefined;
  memory: MemoryReport = { privatePages: 0, sharedPages: 0 };
  #pending: PendingMemory | undefined;
  #kept: Kept[] = [];
  #lock: Kept | undefined;
  readonly #plan: NetworkPlan;
  readonly #survey: DescriptorSurvey;
  readonly #contents: ReturnType<typeof network.freeze>;
  readonly #memfds = new MemfdCollector();

  constructor({ writer, processes, options, guardian, commitment, survey, plan }: Given) {
    this.#plan = plan;
    this.#survey = survey;
    this.identities = new Identities(processes, plan.home);
    this.files = new DescriptorCollector(fileKinds, (process) => this.identities.of(process).filesId, survey);
    this.context = {
      writer,
      processes,
      files: this.files,
      memfds: this.#memfds,
      namespaceId: (type, inode) => this.identities.namespaceId(type, inode),
      options,
      ownNetwork: plan.tree === plan.home ? undefined : plan.contents === undefined ? 'stays' : 'saved',
      refuse: (refusal) => {
        throw new UnsupportedError([refusal], 'changed while it was being frozen and cannot be saved now');
      },
      undo: (entries) => {
        const duty = undoDuty(commitment, (tape, target) =>
          entries(tape, ({ process, fd }) => tape.call('pidfd_getfd', [target(process.pid), fd, 0], 'any')),
        );
        guardian.take(duty);
        return { [Symbol.dispose]: () => guardian.drop(duty) };
      },
      play: (tapes) => playOn(this.loan, tapes),
      keep: (kept) => {
        this.#kept.push(kept);
      },
      inventory: { dumpCriuRunId: randomUUID(), networkLockMethod: 0, tcpClose: false },
      retry: (refusal, hold) => {
        const what = 'cannot be saved just now';
        throw commitment.isUnderWay
          ? new UnsupportedError([refusal], what)
          : new PassingError([refusal], what, hold);
      },
    };
    for (const process of processes) {
      const headless = headlessRefusal(process);
      if (headless !== undefined) this.context.refuse(headless);
    }
    this.files.begin(this.context);
    this.#contents = network.freeze(this.context, plan, (process) => this.identities.of(process).netNsId);
    if (this.context.ownNetwork !== undefined) this.#lock = networkLock.hold(this.context);
  }

  dumpMemory(leaders: ReadonlyMap<Process, Actor>, copies: Copies): void {
    this.#pending = memory.dump(this.context, leaders, (process) => copies.pidOf(process));
  }

  finishMemory(): void {
    if (this.#pending !== undefined) this.memory = this.#pending.finish();
  }

  /** Everything is written, and the tree will be killed. */
  commitKept(): void {
    for (const kept of this.#all()) kept.commit?.();
  }

  /** The lock of the whole network is the first to be let go, as that of connections is (socket/tcp-silence.ts). */
  #all(): Kept[] {
    return this.#lock === undefined ? this.#kept : [...this.#kept, this.#lock];
  }

  /** What was kept until the tree goes on, or is gone; once, and all of it, whatever becomes of one. */
  letGo(outcome: 'goes on' | 'killed'): void {
    const all = this.#all().reverse();
    this.#lock = undefined;
    this.#kept = [];
    insistOnAll(all.map((each) => () => each.release(outcome)));
  }

  [Symbol.dispose](): void {
    this.#memfds[Symbol.dispose]();
    this.letGo('goes on');
    if (!this.isCommitted) this.files.abandon();
  }

  writeTree(): void {
    for (const { threads } of this.context.processes) threads.forEach(dumpExtendedRegisters);
    for (const state of taskStates) state.write?.(this.context);
    this.files.write();
    if (this.context.ownNetwork !== undefined) network.write(this.context, this.#plan, this.#contents);
    writeTree(this.context.writer, this.context.processes, this.identities);
    this.#survey[Symbol.dispose]();
  }
}
