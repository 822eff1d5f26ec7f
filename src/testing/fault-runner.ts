import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { SIGKILL, SIGSEGV } from '../abi/signal.js';
import { attempt } from '../kernel/syscall.js';
import type { FaultAnswer, FaultOrder } from './fault-order.js';

/** What a process of fault-run.ts says, a line each. */
type Message =
  | { readonly born: number; readonly killer?: number }
  /** How it ended, as wait(2) says. */
  | { readonly over: number }
  | FaultAnswer;

/** Of one server, which may have thousands of runners. */
const CRASHES_MAX = 3;
const SCRIPT = fileURLToPath(new URL('./fault-run.js', import.meta.url));
/** For a process that forks: V8 without threads. */
const LONELY = ['--single-threaded', '--v8-pool-size=0', '--expose-gc', '--min-semi-space-size=16'];

/** A process that carries out one order. `asyncDispose` lets go of one that lives on after its answer. */
export interface Runner extends AsyncDisposable {
  /** Itself, and what helps it. */
  readonly pids: readonly number[];
  readonly isOver: boolean;
  /** What it says, or undefined when it was killed. It may still live after that. */
  obey(order: FaultOrder, timeout_ms?: number): Promise<FaultAnswer | undefined>;
  /** SIGKILL, for one that hangs. */
  kill(): void;
}

/** The other end of a process of fault-run.ts. */
class Line {
  readonly child: ChildProcessWithoutNullStreams;
  readonly ended: Promise<void>;
  /** How many runners of this server died without a reason. */
  crashes = 0;
  readonly #messages: Message[] = [];
  #output = '';
  #complaint = '';
  #end: string | undefined;
  #wake: (() => void) | undefined;

  constructor(mode: 'once' | 'serve') {
    const flags = mode === 'serve' ? LONELY : [];
    const stdio = ['pipe', 'pipe', 'pipe', ...(mode === 'once' ? (['pipe', 'pipe'] as const) : [])] as const;
    this.child = spawn(process.execPath, [...flags, SCRIPT, mode], {
      stdio: [...stdio],
    }) as ChildProcessWithoutNullStreams;
    this.child.stdout.on('data', (bytes: Buffer) => this.#hear(bytes.toString()));
    this.child.stderr.on('data', (bytes: Buffer) => {
      this.#complaint += bytes.toString();
    });
    this.child.stdin.on('error', () => undefined);
    this.ended = new Promise((resolve) => {
      this.child.once('close', (status, signal) => {
        this.#end = signal ?? `status ${status}`;
        this.#wake?.();
        resolve();
      });
    });
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** By which signal, or with which status it ended. */
  get end(): string | undefined {
    return this.#end;
  }

  get complaint(): string {
    return this.#complaint;
  }

  #hear(text: string): void {
    const lines = (this.#output + text).split('\n');
    this.#output = lines.pop() ?? '';
    for (const line of lines) this.#messages.push(JSON.parse(line) as Message);
    this.#wake?.();
  }

  say(text: string): void {
    this.child.stdin.write(`${text}\n`);
  }

  /** The next message, or undefined when it has ended. */
  async next(timeout_ms: number): Promise<Message | undefined> {
    const deadline = Date.now() + timeout_ms;
    for (;;) {
      const message = this.#messages.shift();
      if (message !== undefined) return message;
      if (this.#end !== undefined) return undefined;
      if (Date.now() > deadline) throw new Error(`hangs, after ${timeout_ms} ms`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1000);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** The next message, if it has come already. */
  poll(): Message | undefined {
    return this.#messages.shift();
  }
}

const TIMEOUT_MS = 60_000;
const WARM_UPS = 4;

/** A Node process of its own. */
export class FreshRunner implements Runner {
  readonly #line = new Line('once');

  /** The other ends of its descriptors 3, a stream out, and 4, answers to it. */
  get stream(): Socket {
    return this.#line.child.stdio[3] as Socket;
  }

  get answers(): Socket {
    return this.#line.child.stdio[4] as Socket;
  }

  get pids(): readonly number[] {
    return [this.#line.pid];
  }

  get isOver(): boolean {
    return this.#line.end !== undefined;
  }

  async obey(order: FaultOrder, timeout_ms = TIMEOUT_MS): Promise<FaultAnswer | undefined> {
    this.#line.say(JSON.stringify(order));
    const message = await this.#line.next(timeout_ms);
    if (message !== undefined && 'calls' in message) return message;
    const { end, complaint } = this.#line;
    if (end?.startsWith('SIG') !== true) throw new Error(`it ended without an answer: ${end}: ${complaint}`);
    return undefined;
  }

  kill(): void {
    this.#line.child.kill('SIGKILL');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#line.child.stdin.end();
    await this.#line.ended;
  }
}

/** A child of a process that forks one for each order. */
class ForkedRunner implements Runner {
  readonly #line: Line;
  #pids: readonly number[] = [];
  #over: number | undefined;
  #hasAnswered = false;

  constructor(line: Line) {
    this.#line = line;
  }

  get pids(): readonly number[] {
    return this.#pids;
  }

  get isOver(): boolean {
    const message = this.#over === undefined && this.#hasAnswered ? this.#line.poll() : undefined;
    if (message !== undefined && 'over' in message) this.#over = message.over;
    return this.#over !== undefined;
  }

  async obey(order: FaultOrder, timeout_ms = TIMEOUT_MS): Promise<FaultAnswer | undefined> {
    this.#line.say(JSON.stringify(order));
    for (let answer: FaultAnswer | undefined; ; ) {
      const message = await this.#line.next(timeout_ms);
      if (message === undefined) throw new Error(`no orders are taken any more: ${this.#line.complaint}`);
      if ('calls' in message) answer = message;
      else if ('born' in message) this.#pids = [message.born, message.killer ?? 0];
      else {
        this.#over = message.over;
        const signal = message.over & 0x7f;
        const meant = 'signal' in order.fault ? order.fault.signal : SIGKILL;
        // V8 in a forked process lacks its helper threads, and may die of that: then it is one kill more, at an instant
        // nobody chose, and the tree has to be as unharmed. Now and then: what happens more often is a mistake of ours.
        const isCrash = answer === undefined && signal === SIGSEGV && signal !== meant;
        if (isCrash) process.stderr.write(`a runner died of SIGSEGV: ${JSON.stringify(order.fault)}\n`);
        const isForgiven = isCrash && this.#line.crashes++ < CRASHES_MAX;
        if (answer === undefined && signal !== meant && !isForgiven)
          throw new Error(`it ended without an answer: status ${message.over}, ${this.#line.complaint}`);
      }
      if (this.#over !== undefined && answer === undefined) return undefined;
      if (answer !== undefined && this.#pids.length > 0) {
        this.#hasAnswered = true;
        return answer;
      }
    }
  }

  kill(): void {
    const [pid] = this.#pids;
    if (pid !== undefined) attempt('kill', [pid, SIGKILL]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#hasAnswered) this.#line.say('');
    while (this.#over === undefined) {
      const message = await this.#line.next(TIMEOUT_MS);
      if (message === undefined || 'over' in message) this.#over = message?.over ?? 0;
    }
  }
}

/** Runners one after the other. Of fresh ones, one is always being started while another is at work. */
export class RunnerPool implements AsyncDisposable {
  readonly #server: Line | undefined;
  #next: FreshRunner | undefined;

  constructor(isFresh = false) {
    if (isFresh) this.#next = new FreshRunner();
    else this.#server = new Line('serve');
  }

  /** Let the code of this be compiled before trials begin. `cleanUp` ends what a success leaves. */
  async warmUp(order: FaultOrder, cleanUp: () => Promise<void>): Promise<void> {
    for (let round = 0; round < WARM_UPS && this.#server !== undefined; round++) {
      this.#server.say(JSON.stringify({ ...order, isWarmUp: true }));
      const answer = await this.#server.next(TIMEOUT_MS);
      await cleanUp();
      if (answer === undefined || !('calls' in answer) || answer.error !== undefined)
        throw new Error(`cannot warm up: ${JSON.stringify(answer)} ${this.#server.complaint}`);
    }
  }

  take(): Runner {
    if (this.#server !== undefined) return new ForkedRunner(this.#server);
    const runner = this.#next ?? new FreshRunner();
    this.#next = new FreshRunner();
    return runner;
  }

  /** Processes that are no runner's. */
  get pids(): readonly number[] {
    return this.#server === undefined ? (this.#next?.pids ?? []) : [this.#server.pid];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#next?.[Symbol.asyncDispose]();
    this.#server?.child.stdin.end();
    await this.#server?.ended;
  }
}
