import { randomUUID } from 'node:crypto';
import { writeChecksums } from '../image/checksums.js';
import { ImageWriter } from '../image/index.js';
import { ImageReader } from '../image/reader.js';
import { sleep_us } from '../kernel/syscall.js';
import { statistics } from '../kernel/wait.js';
import type {
  Actor,
  DumpContext,
  Kept,
  MemoryReport,
  PendingMemory,
  Process,
  Refusal,
} from '../resources/contract.js';
import { DescriptorCollector } from '../resources/file/index.js';
import { MemfdCollector } from '../resources/memory/index.js';
import { dumpExtendedRegisters } from '../resources/process/index.js';
import { insist } from '../tape/insist.js';
import { ask, playOn } from './ask.js';
import { refusalsOf } from './check.js';
import { now_ms, PhaseClock } from './clock.js';
import { type Commitment, commitmentOf } from './commitment.js';
import { Copies } from './copies.js';
import { commitDuty, undoDuty } from './duties.js';
import { type MoveError, PassingError, UnsupportedError } from './errors.js';
import { Frozen } from './freeze.js';
import { type Duty, Guardian } from './guardian.js';
import { Identities } from './identity.js';
import { Loan } from './lend.js';
import type { CheckpointOptions, CheckpointReport } from './options.js';
import { fileKinds, memory, taskStates } from './registry.js';
import { rehearse } from './rehearsal.js';
import { inventoryOf, writeTree } from './tree-image.js';

/**
 * Save a tree. Each phase is a barrier; whatever fails before the commit undoes what was done, in reverse order, by
 * the scopes of `writer`, `frozen` and `loan`: no image is left, and the tree goes on as if nothing had happened.
 */
export function dump(options: CheckpointOptions): CheckpointReport {
  let hold: Disposable | undefined;
  try {
    for (let attempt = 1; ; attempt++) {
      try {
        return dumpOnce(options);
      } catch (error) {
        if (!(error instanceof PassingError) || attempt === ATTEMPTS) throw error;
        hold ??= error.hold?.();
        sleep_us(PAUSE_US);
      }
    }
  } finally {
    hold?.[Symbol.dispose]();
  }
}

/** How often, and how much later, a tree is tried again that had something unsavable which passes by itself. */
const ATTEMPTS = 5;
const PAUSE_US = 20_000;

function dumpOnce(options: CheckpointOptions): CheckpointReport {
  const clock = new PhaseClock(options.hooks.phase);

  clock.start('look');
  refuseAll(refusalsOf(options.pid, options));
  if (options.rehearsed) {
    clock.start('rehearse');
    rehearse(dump, options);
  }
  const stopsBefore = statistics.stops;
  const commitment = commitmentOf(options);
  using writer = new ImageWriter(commitment.target);

  using guardian = Guardian.start();

  clock.start('freeze');
  writer.hold();
  const freeze_start = now_ms();
  using frozen = Frozen.freeze(options.pid, options.timeout_ms);
  const frozen_start = now_ms();
  const { processes } = frozen;
  guardian.know(
    living(processes).map(({ pid }) => pid),
    commitment.descriptors,
  );
  using dumping = new Dumping(writer, processes, options, guardian, commitment);

  clock.start('borrow');
  using copies = new Copies();
  using loan = new Loan(processes, guardian);
  dumping.loan = loan;

  clock.start('ask');
  const hear = ask(loan, dumping.context);
  const leaders = leadersOf(loan);
  if (options.afterwards === 'run') copies.make(loan.parents(leaders));

  clock.start('files');
  dumping.files.dump();

  clock.start('memory');
  dumping.dumpMemory(leaders, copies);

  clock.start('give back');
  loan.giveBack();

  // All that is left to write is in our hands, and memory in the copies.
  const { committed } = options.hooks;
  if (options.afterwards === 'run' && committed === undefined) {
    dumping.letGo('goes on');
    frozen.thaw();
  }
  const thawed = now_ms();

  clock.start('write');
  hear();
  writer.release();
  dumping.finishMemory();
  copies[Symbol.dispose]();
  dumping.writeTree();

  clock.start('commit');
  options.hooks.beforeCommit?.();
  // Whoever is to be killed must not run on if we die between the commit and the kill.
  const duty =
    options.afterwards === 'run' ? undefined : commitDutyOf(options, processes, guardian, commitment);
  if (duty !== undefined) {
    guardian.take(duty);
    if (!guardian.holds) frozen.pin();
  }
  if (options.afterwards === 'kill') dumping.commitKept();
  const inventory = inventoryOf(dumping.identities, dumping.context.inventory);
  const undecided = commit(commitment, writer, inventory, guardian);
  dumping.isCommitted = true;
  if (undecided !== undefined) {
    // Nothing of it may be heard of from here on, nor be lost.
    dumping.letGo('killed');
    frozen.leaveStopped();
    throw undecided;
  }
  const afterwards = committed?.() ?? options.afterwards;
  if (afterwards === 'kill') {
    frozen.kill();
    commitment.killed();
  } else {
    dumping.letGo('goes on');
    if (duty !== undefined && afterwards === 'run') guardian.drop(duty);
    if (afterwards === 'run') frozen.thaw();
    else frozen.leaveStopped();
  }
  dumping.letGo('killed');
  const gone = now_ms();
  clock.stop();
  // The frames of archives and streams have theirs.
  const warning = options.checksums && options.to === undefined ? addChecksums(options.directory) : undefined;

  const { bytes } = writer;
  return {
    directory: options.directory,
    warning,
    processes: processes.length,
    threads: frozen.threads.length,
    freezing_ms: frozen_start - freeze_start,
    frozen_ms: (options.afterwards === 'run' && committed === undefined ? thawed : gone) - frozen_start,
    stops: statistics.stops - stopsBefore,
    phases: clock.phases,
    ...dumping.memory,
    image_bytes: [...bytes.values()].reduce((sum, size) => sum + size, 0),
    files: bytes,
  };
}

function living(processes: readonly Process[]): Process[] {
  return processes.filter(({ state }) => state !== 'zombie');
}

function commitDutyOf(
  options: CheckpointOptions,
  processes: readonly Process[],
  guardian: Guardian,
  commitment: Commitment,
): Duty {
  const pids = living(processes).map(({ pid }) => pid);
  const alive = processes.filter(({ state }) => state === 'alive').map(({ pid }) => pid);
  return commitDuty(pids, commitment, options.afterwards === 'kill', () => (guardian.holds ? [] : alive));
}

/** A commit that fails half-way leaves no image, and that before anybody runs on. */
function commit(
  commitment: Commitment,
  writer: ImageWriter,
  inventory: ReturnType<typeof inventoryOf>,
  guardian: Guardian,
): MoveError | undefined {
  try {
    return commitment.commit(writer, inventory, guardian);
  } catch (error) {
    writer.abandon();
    throw error;
  }
}

function refuseAll(items: readonly Refusal[]): void {
  if (items.length > 0) throw new UnsupportedError(items);
}

/** What is gathered while the tree is frozen; what was made for it outside of the image goes again if there is none. */
class Dumping implements Disposable {
  isCommitted = false;
  readonly context: DumpContext;
  readonly files: DescriptorCollector;
  readonly identities: Identities;
  /** Who can be asked by tapes, while they are borrowed. */
  loan: Loan | undefined;
  memory: MemoryReport = { privatePages: 0, sharedPages: 0 };
  #pending: PendingMemory | undefined;
  readonly #kept: Kept[] = [];
  readonly #memfds = new MemfdCollector();

  constructor(
    writer: ImageWriter,
    processes: readonly Process[],
    options: CheckpointOptions,
    guardian: Guardian,
    commitment: Commitment,
  ) {
    this.identities = new Identities(processes);
    this.files = new DescriptorCollector(fileKinds, (process) => this.identities.of(process).filesId);
    this.context = {
      writer,
      processes,
      files: this.files,
      memfds: this.#memfds,
      namespaceId: (type, inode) => this.identities.namespaceId(type, inode),
      options,
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
    this.files.begin(this.context);
  }

  dumpMemory(leaders: ReadonlyMap<Process, Actor>, copies: Copies): void {
    this.#pending = memory.dump(this.context, leaders, (process) => copies.pidOf(process));
  }

  finishMemory(): void {
    if (this.#pending !== undefined) this.memory = this.#pending.finish();
  }

  /** Everything is written, and the tree will be killed. */
  commitKept(): void {
    for (const kept of this.#kept) kept.commit?.();
  }

  /** What was kept until the tree goes on, or is gone; once, and all of it, whatever becomes of one. */
  letGo(outcome: 'goes on' | 'killed'): void {
    const errors: unknown[] = [];
    for (const kept of this.#kept.splice(0).reverse())
      try {
        insist(() => kept.release(outcome));
      } catch (error) {
        errors.push(error);
      }
    if (errors.length > 0) throw errors[0];
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
    writeTree(this.context.writer, this.context.processes, this.identities);
  }
}

function leadersOf(loan: Loan): Map<Process, Actor> {
  const leaders = new Map<Process, Actor>();
  for (const [thread, actor] of loan.actors) if (thread.isLeader) leaders.set(thread.process, actor);
  return leaders;
}

/** The image is complete, and perhaps all there is of the tree: that it has no checksums is no failure of the dump. */
function addChecksums(directory: string): string | undefined {
  try {
    using reader = ImageReader.open(directory);
    writeChecksums(reader);
    return undefined;
  } catch (error) {
    return `the image is complete, but has no checksums: ${error instanceof Error ? error.message : String(error)}`;
  }
}
