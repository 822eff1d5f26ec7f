import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { FaultAnswer, FaultOrder } from './fault-run.js';

/** A process of fault-run.ts. `close` lets go of one that lives on after its answer. */
export class FaultRunner implements AsyncDisposable {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #ended: Promise<void>;
  #output = '';
  #complaint = '';
  #signal: string | undefined;
  #isOver = false;
  #wake: (() => void) | undefined;

  constructor() {
    const script = fileURLToPath(new URL('./fault-run.js', import.meta.url));
    this.#child = spawn(process.execPath, [script], { stdio: 'pipe' });
    this.#child.stdout.on('data', (bytes: Buffer) => {
      this.#output += bytes.toString();
      this.#wake?.();
    });
    this.#child.stderr.on('data', (bytes: Buffer) => {
      this.#complaint += bytes.toString();
    });
    this.#child.stdin.on('error', () => undefined);
    this.#ended = new Promise((resolve) => {
      this.#child.once('close', (_, signal) => {
        this.#isOver = true;
        this.#signal = signal ?? undefined;
        this.#wake?.();
        resolve();
      });
    });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** What it says, or undefined when it was killed. It may still live after that. */
  async obey(order: FaultOrder, timeout_ms = 60_000): Promise<FaultAnswer | undefined> {
    this.#child.stdin.write(`${JSON.stringify(order)}\n`);
    const deadline = Date.now() + timeout_ms;
    while (!this.#output.includes('\n') && !this.#isOver) {
      if (Date.now() > deadline) throw new Error(`hangs: ${JSON.stringify(order.fault)}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, 1000).unref();
      });
    }
    if (this.#output.includes('\n')) return JSON.parse(this.#output) as FaultAnswer;
    if (this.#signal === undefined) throw new Error(`it ended without an answer: ${this.#complaint}`);
    return undefined;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** SIGKILL, for one that hangs. */
  kill(): void {
    this.#child.kill('SIGKILL');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.stdin.end();
    await this.#ended;
  }
}

/** One is always being started while another is at work. */
export class RunnerPool implements AsyncDisposable {
  #next = new FaultRunner();

  take(): FaultRunner {
    const runner = this.#next;
    this.#next = new FaultRunner();
    return runner;
  }

  get idle(): number {
    return this.#next.pid;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#next[Symbol.asyncDispose]();
  }
}
