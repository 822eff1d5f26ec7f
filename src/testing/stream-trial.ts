import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { SIGCONT } from '../abi/signal.js';
import { READY } from '../engine/answers.js';
import { ArchiveDecoder } from '../image/index.js';
import { attempt } from '../kernel/syscall.js';
import type { Fault, FaultAnswer } from './fault-order.js';
import { FreshRunner } from './fault-runner.js';
import { FaultSubject } from './fault-subject.js';
import { differences, type Snapshot, snapshotTree, strangers } from './faults.js';

/** What the other end of a stream does. */
export type Behaviour =
  /** Takes all of it; no answers are asked for. */
  | 'listens'
  /** Brings the tree up, and says so. */
  | 'runs it'
  | 'fails'
  | 'hangs up in the middle'
  | 'hangs up at the end'
  | 'says nothing'
  | 'hangs up when ready'
  | 'hangs up when told to go'
  | 'fails when told to go'
  | 'says nothing when told to go';

export interface StreamTrial {
  readonly answer: FaultAnswer | undefined;
  /** What came to the other end. */
  readonly isWhole: boolean;
  readonly isGone: boolean;
  /** It said that the tree runs. */
  readonly runs: boolean;
  /** The source afterwards: nothing else is allowed. */
  readonly source: 'running' | 'killed' | 'stopped' | 'harmed';
  readonly harm: readonly string[];
}

const SETTLE_MS = 10_000;

const pause = (duration_ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, duration_ms));

/** The other end: judges what comes, and answers as it is told to. */
class Target {
  readonly decoder = new ArchiveDecoder('the stream');
  readonly ended: Promise<void>;
  runs = false;
  readonly #runner: FreshRunner;
  readonly #behaviour: Behaviour;
  #isReady = false;
  #isTold = false;

  constructor(runner: FreshRunner, behaviour: Behaviour) {
    this.#runner = runner;
    this.#behaviour = behaviour;
    const { stream, answers } = runner;
    answers.on('error', () => undefined);
    stream.on('error', () => undefined);
    stream.on('data', (bytes: Buffer) => this.#take(bytes));
    this.ended = new Promise((resolve) => stream.once('close', () => resolve()));
  }

  #take(bytes: Buffer): void {
    this.decoder.push(bytes);
    const { contents } = this.decoder;
    if (this.#behaviour === 'hangs up in the middle') this.#hangUp();
    if (this.#behaviour === 'listens') return;
    if (contents.endAt !== undefined && !this.#isReady) {
      this.#isReady = true;
      this.#atEnd();
    }
    if (contents.isGone && !this.#isTold) {
      this.#isTold = true;
      this.#atGone();
    }
  }

  #atEnd(): void {
    if (this.#behaviour === 'hangs up at the end') this.#hangUp();
    else if (this.#behaviour === 'fails') this.#runner.answers.write('failed: no such pid\n');
    else if (this.#behaviour !== 'says nothing') this.#runner.answers.write(`${READY}\n`);
    if (this.#behaviour === 'hangs up when ready') this.#hangUp();
  }

  #atGone(): void {
    if (this.#behaviour === 'hangs up when told to go') this.#hangUp();
    else if (this.#behaviour === 'fails when told to go') this.#runner.answers.write('failed at last\n');
    else if (this.#behaviour === 'runs it') {
      this.runs = true;
      this.#runner.answers.write('running 1\n');
    }
  }

  #hangUp(): void {
    this.#runner.answers.end();
    this.#runner.stream.destroy();
  }
}

/** Trials on one tree, which is replaced when it was killed or harmed. */
export class StreamTrials implements AsyncDisposable {
  #subject: FaultSubject | undefined;
  #baseline: Snapshot = new Map();

  async run(fault: Fault, behaviour: Behaviour): Promise<StreamTrial> {
    const subject = await this.#take();
    const frozenStateFile = join(subject.directory, 'frozen');
    rmSync(frozenStateFile, { force: true });
    await using runner = new FreshRunner();
    const target = new Target(runner, behaviour);
    const harm: string[] = [];
    let answer: FaultAnswer | undefined;
    try {
      answer = await runner.obey({
        what: 'dump',
        pid: subject.pid,
        directory: 'the stream',
        afterwards: 'kill',
        durable: false,
        fault,
        isWarmUp: false,
        stream: { answers: behaviour !== 'listens' },
        stateFile: join(subject.directory, 'state'),
        frozenStateFile,
        phaseFile: undefined,
      });
    } catch (error) {
      harm.push(String(error));
      runner.kill();
    }
    const before =
      answer === undefined ? undefined : await this.#sourceOf(subject, runner, frozenStateFile, harm);
    await runner[Symbol.asyncDispose]();
    await target.ended;
    const source = before ?? (await this.#sourceOf(subject, runner, frozenStateFile, harm));
    if (source !== 'running' || harm.length > 0) this.#replace();
    else subject.absolve();
    const { contents } = target.decoder;
    return {
      answer,
      isWhole: contents.endAt !== undefined,
      isGone: contents.isGone,
      runs: target.runs,
      source,
      harm,
    };
  }

  async #take(): Promise<FaultSubject> {
    if (this.#subject !== undefined) return this.#subject;
    this.#subject = await FaultSubject.start({ confinement: 'none', small: true });
    await pause(30);
    this.#baseline = snapshotTree(this.#subject.pid);
    return this.#subject;
  }

  #replace(): void {
    this.#subject?.[Symbol.dispose]();
    this.#subject = undefined;
  }

  /** What has become of the tree, once that is one of three things. */
  async #sourceOf(
    subject: FaultSubject,
    runner: FreshRunner,
    frozenStateFile: string,
    harm: string[],
  ): Promise<StreamTrial['source']> {
    const deadline = Date.now() + SETTLE_MS;
    for (;;) {
      const left = strangers(new Set([1, process.pid, ...runner.pids]));
      if (left.length === 0) {
        if (ranAgain(subject, frozenStateFile)) harm.push('a task ran again after the commit');
        return 'killed';
      }
      const snapshot = snapshotTree(subject.pid);
      if (isStopped(snapshot)) return await this.#continued(subject, harm);
      const found = [
        ...differences(this.#baseline, snapshot),
        ...strangers(new Set([1, process.pid, ...runner.pids, ...subject.pids])),
      ];
      if (found.length === 0 && (await subject.advance(2000)).length === 0) {
        const { errors, text } = subject.state;
        if (errors > 0) harm.push(`the program found ${errors} errors: ${text}`);
        return 'running';
      }
      if (Date.now() > deadline) {
        harm.push(...found);
        return 'harmed';
      }
      await pause(5);
    }
  }

  /** A stopped tree is whole. */
  async #continued(subject: FaultSubject, harm: string[]): Promise<'stopped'> {
    for (const pid of subject.pids) attempt('kill', [pid, SIGCONT]);
    harm.push(...(await subject.advance(SETTLE_MS)).map((name) => `${name} does not go on`));
    return 'stopped';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#replace();
  }
}

function isStopped(snapshot: Snapshot): boolean {
  const states = [...snapshot].filter(([key]) => key.endsWith('status State'));
  return states.length > 0 && states.every(([, value]) => /^[TZ] /.test(value));
}

function ranAgain(subject: FaultSubject, frozenStateFile: string): boolean {
  if (!existsSync(frozenStateFile)) return true;
  return !readFileSync(frozenStateFile).equals(readFileSync(join(subject.directory, 'state')));
}
