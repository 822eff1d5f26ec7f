import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readTree } from '../kernel/procfs/tree.js';
import { attempt } from '../kernel/syscall.js';
import { lastingLocks, unlock } from '../resources/socket/lock.js';
import type { Fault, FaultAnswer, FaultOrder } from './fault-order.js';
import { type Runner, RunnerPool } from './fault-runner.js';
import { FaultSubject, type SubjectOptions } from './fault-subject.js';
import { differences, type Snapshot, snapshotHost, snapshotTree, strangers } from './faults.js';

/** What one trial came to. */
export interface Trial {
  readonly fault: Fault;
  readonly answer: FaultAnswer | undefined;
  /** Was there a valid image afterwards (dump), or a tree (restore)? */
  readonly done: boolean;
  /** The phase it came to, and the call in it at which the fault was done. */
  readonly phase: string;
  /** What should not be; empty when all is well. */
  readonly harm: readonly string[];
}

/** How long what was orphaned may take to find its way home on a busy machine. */
const SETTLE_MS = 8000;

const pause = (duration_ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, duration_ms));

/** Trials of dumps on one tree, which is replaced when it was killed or harmed. */
export class DumpTrials implements AsyncDisposable {
  readonly #pool: RunnerPool;
  readonly #options: SubjectOptions;
  readonly directory = mkdtempSync(join(tmpdir(), 'stasis-fault-image-'));
  #subject: FaultSubject | undefined;
  #baseline: Snapshot = new Map();
  readonly #host = [snapshotHost(false), snapshotHost(true)] as const;
  #trials = 0;
  #isWarm = false;

  /** `isFresh`: each in a Node process of its own. */
  constructor(options: SubjectOptions, isFresh = false) {
    this.#options = options;
    this.#pool = new RunnerPool(isFresh);
  }

  async subject(): Promise<FaultSubject> {
    if (this.#subject !== undefined) return this.#subject;
    const subject = await FaultSubject.start(this.#options);
    this.#subject = subject;
    await this.#warmUp(subject);
    this.#baseline = await settled(subject.pid);
    return subject;
  }

  async #warmUp(subject: FaultSubject): Promise<void> {
    if (this.#isWarm) return;
    this.#isWarm = true;
    const order = orderFor('dump', subject.pid, this.directory, { kind: 'none' });
    await this.#pool.warmUp({ ...order, afterwards: 'run' }, async () =>
      rmSync(join(this.directory, 'inventory.img'), { force: true }),
    );
    this.#lasting(subject, true, 'run');
    await subject.advance(SETTLE_MS);
    subject.absolve();
  }

  async run(afterwards: FaultOrder['afterwards'], fault: Fault, image = this.directory): Promise<Trial> {
    const subject = await this.subject();
    const frozenStateFile = join(subject.directory, 'frozen');
    const phaseFile = join(subject.directory, 'phase');
    for (const file of [frozenStateFile, phaseFile]) rmSync(file, { force: true });
    const runner = this.#pool.take();
    const order: FaultOrder = {
      what: 'dump',
      pid: subject.pid,
      directory: image,
      afterwards,
      durable: false,
      fault,
      isWarmUp: false,
      stateFile: join(subject.directory, 'state'),
      frozenStateFile,
      phaseFile,
    };
    const harm: string[] = [];
    let answer: FaultAnswer | undefined;
    try {
      answer = await runner.obey(order);
    } catch (error) {
      harm.push(String(error));
      runner.kill();
    }
    const done = existsSync(join(image, 'inventory.img'));
    const isOver = runner.isOver;
    if (done && afterwards === 'kill') harm.push(...(await this.#gone(subject, runner, frozenStateFile)));
    else if (done && afterwards === 'stop') harm.push(...(await this.#stopped(subject)));
    else harm.push(...(await this.#unharmed(subject, runner)));
    if (answer !== undefined && !isOver) harm.push(...contradictions(answer, done));
    await runner[Symbol.asyncDispose]();
    if (done && afterwards === 'run') harm.push(...(await this.#unharmed(subject, runner)));
    const phase = phaseIn(phaseFile);
    const { interrupted } = subject.state;
    if (interrupted > 0 && !(answer === undefined && this.#mayInterrupt(phase)))
      harm.push(`epoll_wait returned EINTR ${interrupted} times`);
    harm.push(...this.#lasting(subject, done, afterwards));
    subject.absolve();
    rmSync(join(image, 'inventory.img'), { force: true });
    if (harm.length > 0 || (done && afterwards !== 'run')) this.#replace();
    return { fault, answer, done, phase, harm };
  }

  /**
   * Between a stop and its cure nothing can be done about an EINTR of epoll_wait (see engine/freeze.ts); and the stop of a
   * strictly confined child (engine/heal.ts) is a SIGCHLD for its parent.
   */
  #mayInterrupt(phase: string): boolean {
    const { confinement } = this.#options;
    return /^freeze\b/.test(phase) || confinement === 'harsh' || confinement === 'strict';
  }

  /** What a dump leaves outside of its image, for the restore; takes it away. */
  #lasting(subject: FaultSubject, done: boolean, afterwards: FaultOrder['afterwards']): string[] {
    const { holds = [] } = this.#options;
    const locks = lastingLocks().map(({ table }) => table);
    for (const table of locks) unlock(table);
    const names = readdirSync(subject.directory).filter((name) => name.startsWith('link_remap.'));
    for (const name of names) rmSync(join(subject.directory, name));
    const expected = {
      locks: done && afterwards === 'kill' && holds.includes('tcp') ? 1 : 0,
      names: done && holds.includes('remap') ? 1 : 0,
    };
    if (locks.length === expected.locks && names.length === expected.names) return [];
    return [`outside of the image there are ${[...locks, ...names].join() || 'neither tables nor names'}`];
  }

  #replace(): void {
    this.#subject?.[Symbol.dispose]();
    this.#subject = undefined;
  }

  /** As before, with nothing of ours left, and everything going on. */
  async #unharmed(subject: FaultSubject, runner: Runner): Promise<string[]> {
    const deadline = Date.now() + SETTLE_MS;
    for (;;) {
      const found = [
        ...differences(this.#baseline, snapshotTree(subject.pid)),
        ...this.#leftOver(subject.pids, runner).map((name) => `left over: ${name}`),
      ];
      if (found.length === 0 || Date.now() > deadline) return [...(await this.#selfCheck(subject)), ...found];
      await pause(2);
    }
  }

  async #selfCheck(subject: FaultSubject): Promise<string[]> {
    const stuck = await subject.advance(SETTLE_MS);
    const { errors, text } = subject.state;
    const withRules = this.#trials++ % 50 === 0;
    const host = differences(this.#host[withRules ? 1 : 0], snapshotHost(withRules));
    const found = [...stuck.map((name) => `${name} does not go on`), ...host.map((line) => `host: ${line}`)];
    return errors === 0 ? found : [`the program found ${errors} errors: ${text}`, ...found];
  }

  #leftOver(tree: readonly number[], runner: Runner): string[] {
    return strangers(new Set([1, process.pid, ...this.#pool.pids, ...runner.pids, ...tree]));
  }

  /** Nobody of the tree is there any more, nobody ran again, and nothing of ours is left. */
  async #gone(subject: FaultSubject, runner: Runner, frozenStateFile: string): Promise<string[]> {
    const deadline = Date.now() + SETTLE_MS;
    for (;;) {
      const left = this.#leftOver([], runner);
      if (left.length === 0) break;
      if (Date.now() > deadline) return left.map((name) => `still there after the commit: ${name}`);
      await pause(2);
    }
    if (!existsSync(frozenStateFile)) return ['an inventory appeared before everything was written'];
    const frozen = readFileSync(frozenStateFile);
    const last = readFileSync(join(subject.directory, 'state'));
    return frozen.equals(last) ? [] : ['a task ran again after the commit'];
  }

  /** Everybody is stopped, and goes on when continued. */
  async #stopped(subject: FaultSubject): Promise<string[]> {
    const deadline = Date.now() + SETTLE_MS;
    const runs = () =>
      [...snapshotTree(subject.pid)].filter(
        ([key, value]) => key.endsWith('status State') && !/^[TZ] /.test(value),
      );
    while (runs().length > 0 && Date.now() < deadline) await pause(2);
    const found = runs().map(([key]) => `${key}: not stopped after the commit`);
    for (const pid of subject.pids) attempt('kill', [pid, 18]);
    found.push(...(await subject.advance(SETTLE_MS)).map((name) => `${name} does not go on`));
    const { errors, text } = subject.state;
    return errors === 0 ? found : [...found, `the program found ${errors} errors: ${text}`];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#replace();
    await this.#pool[Symbol.asyncDispose]();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** What a process that lived on said of its work must be so. */
function contradictions(answer: FaultAnswer, done: boolean): string[] {
  if (answer.error !== undefined && done) return [`it failed but left an image: ${answer.error}`];
  if (answer.error === undefined && !done) return ['it said to be done but left no image'];
  return [];
}

/** What the runner noted there. */
function phaseIn(file: string): string {
  return existsSync(file) ? readFileSync(file, 'utf8') : '';
}

/** A snapshot that is the same twice in a row. */
async function settled(pid: number): Promise<Snapshot> {
  let before = snapshotTree(pid);
  for (;;) {
    await pause(30);
    const after = snapshotTree(pid);
    if (differences(before, after).length === 0) return after;
    before = after;
  }
}

/** Trials of restores from one image. */
export class RestoreTrials implements AsyncDisposable {
  readonly #pool: RunnerPool;
  readonly #directory: string;
  readonly #subject: FaultSubject;
  readonly #pids: readonly number[];
  readonly #image: string;
  /** Of the tree, which `strangers` does not count. */
  readonly #zombies: number;

  private constructor(
    pool: RunnerPool,
    subject: FaultSubject,
    pids: readonly number[],
    directory: string,
    zombies: number,
  ) {
    this.#pool = pool;
    this.#subject = subject;
    this.#pids = pids;
    this.#directory = directory;
    this.#image = fingerprint(directory);
    this.#zombies = zombies;
  }

  static async start(options: SubjectOptions, isFresh = false): Promise<RestoreTrials> {
    const subject = await FaultSubject.start({ ...options, deaf: true });
    const { pids } = subject;
    const directory = mkdtempSync(join(tmpdir(), 'stasis-fault-image-'));
    const made = await dumpFor(subject, directory);
    if (made?.error !== undefined) throw new Error(made.error);
    const pool = new RunnerPool(isFresh);
    await pool.warmUp(orderFor('restore', subject.pid, directory, { kind: 'none' }), async () => {
      for (const pid of pids) attempt('kill', [pid, 9]);
      while (pids.some((pid) => existsSync(`/proc/${pid}`))) await pause(2);
    });
    return new RestoreTrials(pool, subject, pids, directory, options.small === true ? 0 : 1);
  }

  async run(fault: Fault): Promise<Trial> {
    const subject = this.#subject;
    const phaseFile = join(subject.directory, 'phase');
    rmSync(phaseFile, { force: true });
    const runner = this.#pool.take();
    subject.absolve();
    const harm: string[] = [];
    let answer: FaultAnswer | undefined;
    try {
      const order = orderFor('restore', subject.pid, this.#directory, fault);
      answer = await runner.obey({ ...order, phaseFile });
    } catch (error) {
      harm.push(String(error));
      runner.kill();
    }
    const done = await this.#allOrNothing(runner, harm);
    if (answer !== undefined && (answer.error === undefined) !== done)
      harm.push(
        done ? `it failed but left a tree: ${answer.error}` : 'it said to be done, but nobody is there',
      );
    for (const pid of this.#pids) attempt('kill', [pid, 9]);
    await runner[Symbol.asyncDispose]();
    await this.#empty(runner, harm);
    if (fingerprint(this.#directory) !== this.#image) harm.push('the image has changed');
    return { fault, answer, done, phase: phaseIn(phaseFile), harm };
  }

  /** Answers whether the tree is there; anything between all and nothing is harm. */
  async #allOrNothing(runner: Runner, harm: string[]): Promise<boolean> {
    const deadline = Date.now() + SETTLE_MS;
    for (;;) {
      const left = this.#left(runner);
      if (left.length === 0) return false;
      const present = treeOf(this.#subject.pid);
      const isWhole =
        this.#pids.every((pid) => present.includes(pid)) && left.length === this.#pids.length - this.#zombies;
      // Those who are about to be killed do not advance; so it is asked again and again.
      const stuck = isWhole ? await this.#subject.advance(100) : [];
      if (isWhole && stuck.length === 0) {
        const { errors, text } = this.#subject.state;
        const { interrupted } = this.#subject.state;
        if (interrupted > 0) harm.push(`epoll_wait returned EINTR ${interrupted} times`);
        if (errors > 0) harm.push(`the program found ${errors} errors: ${text}`);
        return true;
      }
      if (Date.now() > deadline) {
        harm.push(
          ...left.map((name) => `neither whole nor gone: ${name}`),
          ...stuck.map((name) => `${name} stands still`),
        );
        return present.length > 0;
      }
      await pause(2);
    }
  }

  #left(runner: Runner): string[] {
    return strangers(new Set([1, process.pid, ...this.#pool.pids, ...runner.pids]));
  }

  async #empty(runner: Runner, harm: string[]): Promise<void> {
    const deadline = Date.now() + SETTLE_MS;
    while (this.#left(runner).length > 0 || this.#pids.some((pid) => existsSync(`/proc/${pid}`))) {
      if (Date.now() > deadline) {
        harm.push(...this.#left(runner).map((name) => `left over: ${name}`));
        return;
      }
      await pause(2);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool[Symbol.asyncDispose]();
    this.#subject[Symbol.dispose]();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

function treeOf(root: number): number[] {
  try {
    return readTree(root).map(({ pid }) => pid);
  } catch {
    return [];
  }
}

function orderFor(what: 'dump' | 'restore', pid: number, directory: string, fault: Fault): FaultOrder {
  const none = { stateFile: undefined, frozenStateFile: undefined, phaseFile: undefined };
  return { what, pid, directory, afterwards: 'kill', durable: false, fault, isWarmUp: false, ...none };
}

async function dumpFor(subject: FaultSubject, directory: string): Promise<FaultAnswer | undefined> {
  const pool = new RunnerPool();
  const runner = pool.take();
  const answer = await runner.obey(orderFor('dump', subject.pid, directory, { kind: 'none' }));
  await runner[Symbol.asyncDispose]();
  await pool[Symbol.asyncDispose]();
  return answer;
}

/** Names, sizes, times and contents of all files. */
function fingerprint(directory: string): string {
  const hash = createHash('sha256');
  for (const name of readdirSync(directory).sort()) {
    const file = join(directory, name);
    const { size, mtimeMs, ino } = statSync(file);
    hash.update(`${name} ${size} ${mtimeMs} ${ino}\n`).update(readFileSync(file));
  }
  return hash.digest('hex');
}
