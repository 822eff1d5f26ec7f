import { writeChecksums } from '../image/checksums.js';
import { ImageWriter } from '../image/index.js';
import { ImageReader } from '../image/reader.js';
import { Network } from '../kernel/namespace.js';
import { keepLocksReady } from '../kernel/procfs/locks.js';
import { sleep_us } from '../kernel/syscall.js';
import { Urgency } from '../kernel/urgency.js';
import { statistics } from '../kernel/wait.js';
import type { Actor, Process, Refusal } from '../resources/contract.js';
import { DescriptorSurvey } from '../resources/file/index.js';
import type { NetworkPlan } from '../resources/namespace/index.js';
import { ask } from './ask.js';
import { refusalsOf } from './check.js';
import { now_ms, PhaseClock } from './clock.js';
import { collectGarbage } from './collect-garbage.js';
import { type Commitment, commitmentOf } from './commitment.js';
import { Copies } from './copies.js';
import { Dumping } from './dumping.js';
import { commitDuty } from './duties.js';
import { type MoveError, PassingError, UnsupportedError } from './errors.js';
import { Frozen } from './freeze.js';
import { type Duty, Guardian } from './guardian.js';
import { Loan } from './lend.js';
import { Likeness } from './likeness.js';
import type { CheckpointOptions, CheckpointReport } from './options.js';
import { network } from './registry.js';
import { rehearse } from './rehearsal.js';
import { inventoryOf } from './tree-image.js';

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
        using _ = Network.of(options.pid);
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
  using entered = Network.of(options.pid);
  using survey = new DescriptorSurvey();
  const plan = prepare(options, survey, entered, clock);
  using likeness = Likeness.of(options.pid);
  const stopsBefore = statistics.stops;
  const commitment = commitmentOf(options);
  using writer = new ImageWriter(commitment.target);
  using guardian = Guardian.start();
  clock.start('freeze');
  // While nobody has to wait for it: from here on this thread goes before those of the tree.
  collectGarbage();
  writer.hold();
  using urgency = new Urgency();
  let freeze_start = now_ms();
  using frozen = Frozen.freeze(options.pid, options.timeout_ms, () => {
    // The first to ask waits for all processors; who asks again soon after does not.
    keepLocksReady();
    freeze_start = now_ms();
  });
  const frozen_start = now_ms();
  const { processes } = frozen;
  guardian.know(living(processes), commitment.descriptors);
  using dumping = new Dumping({ writer, processes, options, guardian, commitment, survey, plan });

  clock.start('borrow');
  using copies = new Copies();
  using loan = new Loan(processes, guardian, likeness);
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
  const isThawed = options.afterwards === 'run' && options.hooks.committed === undefined;
  if (isThawed) goOn(dumping, frozen);
  urgency[Symbol.dispose]();
  const thawed = now_ms();

  clock.start('write');
  hear();
  writer.release();
  dumping.finishMemory();
  copies[Symbol.dispose]();
  dumping.writeTree();

  clock.start('commit');
  settle({ options, guardian, commitment, writer, frozen, dumping, entered });
  const gone = now_ms();
  clock.stop();
  return {
    directory: options.directory,
    warning: addChecksums(options),
    processes: processes.length,
    threads: frozen.threads.length,
    freezing_ms: frozen_start - freeze_start,
    frozen_ms: (isThawed ? thawed : gone) - frozen_start,
    stops: statistics.stops - stopsBefore,
    phases: clock.phases,
    ...dumping.memory,
    image_bytes: [...writer.bytes.values()].reduce((sum, size) => sum + size, 0),
    files: writer.bytes,
  };
}

/** All that can be done while the tree runs, in whose network namespace we are. */
function prepare(
  options: CheckpointOptions,
  survey: DescriptorSurvey,
  entered: Network,
  clock: PhaseClock,
): NetworkPlan {
  if (options.rehearsed) {
    clock.start('rehearse');
    rehearse(dump, options);
  }
  clock.start('look');
  const plan = network.plan(entered.inode, entered.home, options);
  refuseAll(refusalsOf(options.pid, options, { survey, plan }));
  survey.prepare();
  return plan;
}

function goOn(dumping: Dumping, frozen: Frozen): void {
  dumping.letGo('goes on');
  frozen.thaw();
}

interface Complete {
  readonly options: CheckpointOptions;
  readonly guardian: Guardian;
  readonly commitment: Commitment;
  readonly writer: ImageWriter;
  readonly frozen: Frozen;
  readonly dumping: Dumping;
  /** Callers' hooks are called outside of it. */
  readonly entered: Network;
}

/** The image becomes valid, and the tree what `afterwards` says; the guardian finishes what our death would leave undone. */
function settle({ options, guardian, commitment, writer, frozen, dumping, entered }: Complete): void {
  entered.outside(() => options.hooks.beforeCommit?.());
  // Whoever is to be killed must not run on if we die between the commit and the kill.
  const duty =
    options.afterwards === 'run' ? undefined : commitDutyOf(options, frozen.processes, guardian, commitment);
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
  const afterwards = entered.outside(() => options.hooks.committed?.()) ?? options.afterwards;
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
}

function living(processes: readonly Process[]): number[] {
  return processes.filter(({ state }) => state !== 'zombie').map(({ pid }) => pid);
}

function commitDutyOf(
  options: CheckpointOptions,
  processes: readonly Process[],
  guardian: Guardian,
  commitment: Commitment,
): Duty {
  const alive = processes.filter(({ state }) => state === 'alive').map(({ pid }) => pid);
  return commitDuty(living(processes), commitment, options.afterwards === 'kill', () =>
    guardian.holds ? [] : alive,
  );
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

function leadersOf(loan: Loan): Map<Process, Actor> {
  const leaders = new Map<Process, Actor>();
  for (const [thread, actor] of loan.actors) if (thread.isLeader) leaders.set(thread.process, actor);
  return leaders;
}

/** The image is complete, and perhaps all there is of the tree: that it has no checksums is no failure of the dump. */
function addChecksums(options: CheckpointOptions): string | undefined {
  // The frames of archives and streams have theirs.
  if (!options.checksums || options.to !== undefined) return undefined;
  try {
    using reader = ImageReader.open(options.directory);
    writeChecksums(reader);
    return undefined;
  } catch (error) {
    return `the image is complete, but has no checksums: ${error instanceof Error ? error.message : String(error)}`;
  }
}
