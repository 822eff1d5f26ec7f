import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { CancelledError, decodeError, EngineLostError } from './errors.js';
import { type FromEngine, fromEngine, Lines, type ToEngine } from './protocol.js';
import type { Method } from './requests.js';
import type { ExitStatus, Results } from './results.js';

/** How far a call has come. */
export interface Progress {
  readonly phase: string;
  readonly elapsed_ms: number;
}

/** What can be given with every call. */
export interface CallControl {
  /**
   * Calls it off: a checkpoint before its commit leaves the source running and no image, a restore leaves no process.
   * After the point of no return the call is done as if nothing had been said.
   */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

export interface EngineOptions {
  /** `inherit` gives the engine, and trees restored with `shell_job`, the caller's standard descriptors and terminal. */
  readonly stdio?: 'ignore' | 'inherit';
  /**
   * Further descriptors of the caller; in the engine they are numbered from ENGINE_FIRST_FD on, in this order. A `pipe` is
   * a new socket, whose other end `channel` answers.
   */
  readonly fds?: readonly (number | 'pipe')[];
}

export const ENGINE_FIRST_FD = 4;
/** How long a cancelled call may go on before its engine is killed. */
const CANCEL_GRACE_MS = 30_000;
/** Bytes of the engine's standard error that are kept for the message of its loss. */
const COMPLAINT_BYTES_MAX = 8192;

interface Pending {
  readonly resolve: (value: Results[Method]) => void;
  readonly reject: (error: Error) => void;
  readonly onProgress: CallControl['onProgress'];
}

/**
 * An engine: a process of its own that does the work, so that the caller's event loop never waits. Calls are done
 * one after the other. It is started at once, and is warm when its first call comes; `close` (or the end of a
 * `using` scope) ends it after the calls made so far. It does not keep the caller's process alive while idle.
 */
export class Engine implements Disposable, AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  readonly #exits = new Map<number, PromiseWithResolver<ExitStatus>>();
  readonly #gone: Promise<void>;
  #next = 0;
  #waiting = 0;
  #complaint = '';
  #lost: EngineLostError | undefined;

  constructor(options: EngineOptions = {}) {
    const inherit = options.stdio === 'inherit';
    const own = inherit ? 'inherit' : 'ignore';
    const stdio: StdioOptions = [own, own, inherit ? 'inherit' : 'pipe', 'pipe', ...(options.fds ?? [])];
    const { NODE_OPTIONS: _, ...env } = process.env;
    // Its directory is the root, so that it holds no mount, and works where the caller's has vanished.
    this.#child = spawn(process.execPath, [...ROOMY, WORKER], { stdio, cwd: '/', env });
    this.#socket = this.#child.stdio[3] as Socket;
    this.#gone = new Promise((resolve) => {
      this.#child.once('error', (error) => {
        this.#lose(new EngineLostError(`The engine cannot be started: ${error.message}`, { cause: error }));
        resolve();
      });
      this.#child.once('exit', (status, signal) => {
        this.#lose(new EngineLostError(describeLoss(status, signal, this.#complaint)));
        resolve();
      });
    });
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      this.#complaint = `${this.#complaint}${chunk}`.slice(-COMPLAINT_BYTES_MAX);
    });
    this.#listen();
    this.#unrefWhenIdle();
  }

  /** Its process, for whoever watches it. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** The other end of a `pipe`, by its number in the engine. */
  channel(fd: number): Socket {
    return this.#child.stdio[fd as 4] as unknown as Socket;
  }

  /** Ask for something; the answer, or the error, is the engine's. */
  call<M extends Method>(method: M, options: unknown, control: CallControl = {}): Promise<Results[M]> {
    const { signal, onProgress } = control;
    if (signal?.aborted) return Promise.reject(cancelledBy(signal));
    if (this.#lost !== undefined) return Promise.reject(this.#lost);
    const id = this.#next++;
    const answer = new Promise<Results[Method]>((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, onProgress });
    });
    this.#unrefWhenIdle();
    this.#send({ type: 'call', id, method, options });
    return this.#whileCancellable(id, answer, signal) as Promise<Results[M]>;
  }

  /** How a root that this engine restored ends. */
  async exitOf(pid: number): Promise<ExitStatus> {
    const exit = this.#exitOf(pid);
    this.#waiting++;
    this.#unrefWhenIdle();
    try {
      return await exit.promise;
    } finally {
      this.#waiting--;
      this.#exits.delete(pid);
      this.#unrefWhenIdle();
    }
  }

  /** Ends the engine once the calls made so far are done. Restored trees go on. */
  async close(): Promise<void> {
    await Promise.allSettled([...this.#pending.keys()].map((id) => this.#settled(id)));
    this.#socket.end();
    this.#child.ref();
    await this.#gone;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** As `close`, without waiting; a checkpoint or restore under way is called off. */
  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #settled(id: number): Promise<void> {
    const pending = this.#pending.get(id);
    if (pending === undefined) return Promise.resolve();
    return new Promise((resolve) => {
      const { resolve: answer, reject } = pending;
      this.#pending.set(id, {
        ...pending,
        resolve: (value) => {
          answer(value);
          resolve();
        },
        reject: (error) => {
          reject(error);
          resolve();
        },
      });
    });
  }

  async #whileCancellable<T>(id: number, answer: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    if (signal === undefined) return answer;
    let killer: NodeJS.Timeout | undefined;
    const cancel = (): void => {
      this.#send({ type: 'cancel', id });
      killer = setTimeout(() => this.#child.kill('SIGKILL'), CANCEL_GRACE_MS);
      killer.unref();
    };
    signal.addEventListener('abort', cancel, { once: true });
    try {
      return await answer;
    } catch (error) {
      if (error instanceof CancelledError && signal.aborted) throw cancelledBy(signal);
      throw error;
    } finally {
      signal.removeEventListener('abort', cancel);
      clearTimeout(killer);
    }
  }

  #listen(): void {
    const lines = new Lines();
    this.#socket.on('data', (chunk: Buffer) => {
      try {
        for (const line of lines.push(chunk)) this.#receive(fromEngine.parse(JSON.parse(line)));
      } catch (error) {
        this.#lose(new EngineLostError('The engine does not speak its protocol', { cause: error }));
        this.#child.kill('SIGKILL');
      }
    });
    // The end of the process says more than a broken pipe.
    this.#socket.on('error', () => {});
  }

  #receive(message: FromEngine): void {
    switch (message.type) {
      case 'ready':
        return;
      case 'phase':
        this.#pending.get(message.id)?.onProgress?.({ phase: message.name, elapsed_ms: message.elapsed_ms });
        return;
      case 'result':
        this.#settle(message.id)?.resolve(message.value);
        return;
      case 'error':
        this.#settle(message.id)?.reject(decodeError(message.error));
        return;
      case 'exit':
        this.#exitOf(message.pid).resolve(message.status);
        return;
      default:
        message satisfies never;
    }
  }

  #exitOf(pid: number): PromiseWithResolver<ExitStatus> {
    const known = this.#exits.get(pid) ?? promiseWithResolver<ExitStatus>();
    this.#exits.set(pid, known);
    if (this.#lost !== undefined) known.reject(this.#lost);
    return known;
  }

  #settle(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    this.#unrefWhenIdle();
    return pending;
  }

  #send(message: ToEngine): void {
    this.#socket.write(`${JSON.stringify(message)}\n`);
  }

  #lose(error: EngineLostError): void {
    this.#lost ??= error;
    for (const { reject } of this.#pending.values()) reject(this.#lost);
    for (const { reject } of this.#exits.values()) reject(this.#lost);
    this.#pending.clear();
  }

  #unrefWhenIdle(): void {
    const busy = this.#pending.size > 0 || this.#waiting > 0;
    for (const handle of [this.#child, this.#socket]) busy ? handle.ref() : handle.unref();
    const stderr = this.#child.stderr as { ref?: () => void; unref?: () => void } | null;
    busy ? stderr?.ref?.() : stderr?.unref?.();
  }
}

/**
 * What is made while some hundred threads stand still is less than 16 MiB: so it is not looked for garbage then, nor does the
 * old generation grow so much that V8 begins to mark it. Helpers are not worth waiting for either. V8 would also optimise
 * what has run through 66 KiB of bytecode: in a call of 100 ms that costs a third of the time, and comes too late. What a
 * MiB does not end is worth it. libexec/criu has the same options.
 */
const ROOMY = [
  '--max-semi-space-size=16',
  '--min-semi-space-size=16',
  '--single-threaded-gc',
  '--interrupt-budget=1000000',
];
const WORKER = fileURLToPath(new URL('./worker.js', import.meta.url));

function cancelledBy(signal: AbortSignal): CancelledError {
  return new CancelledError('cancelled by its signal', { cause: signal.reason });
}

function describeLoss(status: number | null, signal: string | null, complaint: string): string {
  const how = signal === null ? `with status ${status}` : `by ${signal}`;
  const said = complaint.trim();
  return `The engine's process ended ${how}${said === '' ? '' : `:\n${said}`}`;
}

interface PromiseWithResolver<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
  readonly reject: (error: Error) => void;
}

function promiseWithResolver<T>(): PromiseWithResolver<T> {
  let resolve: (value: T) => void = () => {};
  let reject: (error: Error) => void = () => {};
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  // Whoever asks for it later gets the rejection then.
  promise.catch(() => {});
  return { promise, resolve, reject };
}
