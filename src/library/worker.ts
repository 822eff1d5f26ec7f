import { readSync, writeSync } from 'node:fs';
import { CancelledError, encodeError } from './errors.js';
import { ENGINE_FD, type FromEngine, Lines, type ToEngine, toEngine } from './protocol.js';
import { handle } from './work/handlers.js';
import { poll } from './work/poll.js';
import { Roots } from './work/roots.js';

/**
 * The engine's own process. It is synchronous throughout, because ptrace belongs to one thread: it waits in poll(2)
 * for requests and for the ends of restored roots, and looks for a cancellation at the begin of every phase.
 */

/** Phases that put things back: they are never called off. */
const UNDOING = new Set(['give back']);
const CHUNK_BYTES = 64 * 1024;

class Worker {
  readonly #lines = new Lines();
  readonly #buffer = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  readonly #roots = new Roots();
  #queue: Extract<ToEngine, { type: 'call' }>[] = [];
  readonly #cancelled = new Set<number>();
  #isOpen = true;

  run(): void {
    this.#send({ type: 'ready', pid: process.pid });
    while (this.#isOpen || this.#queue.length > 0) {
      const call = this.#queue.shift();
      if (call !== undefined) this.#answer(call);
      else this.#wait(-1);
    }
  }

  #wait(timeout_ms: number): void {
    for (const fd of poll([ENGINE_FD, ...this.#roots.fds], timeout_ms)) {
      if (fd === ENGINE_FD) this.#read();
      else {
        const end = this.#roots.collect(fd);
        if (end !== undefined) this.#send({ type: 'exit', ...end });
      }
    }
  }

  #read(): void {
    const count = readSync(ENGINE_FD, this.#buffer);
    if (count === 0) {
      // Nobody waits for answers any more.
      this.#isOpen = false;
      this.#queue = [];
      return;
    }
    for (const line of this.#lines.push(this.#buffer.subarray(0, count))) {
      const message = toEngine.parse(JSON.parse(line));
      if (message.type === 'call') this.#queue.push(message);
      else this.#cancelled.add(message.id);
    }
  }

  #answer({ id, method, options }: Extract<ToEngine, { type: 'call' }>): void {
    const start = performance.now();
    const interrupt = (): void => {
      if (this.#isOpen) for (const _ of poll([ENGINE_FD], 0)) this.#read();
      if (!this.#isOpen) throw new CancelledError('the caller has ended');
      if (this.#cancelled.has(id)) throw new CancelledError();
    };
    const onPhase = (name: string): void => {
      this.#send({ type: 'phase', id, name, elapsed_ms: performance.now() - start });
      if (!UNDOING.has(name)) interrupt();
    };
    try {
      if (this.#cancelled.has(id)) throw new CancelledError();
      const value = handle(method, options, { onPhase, interrupt });
      if (method === 'restore' && 'pid' in value && value.pid !== null) this.#roots.add(value.pid);
      this.#send({ type: 'result', id, value });
    } catch (error) {
      this.#send({ type: 'error', id, error: encodeError(error) });
    }
    this.#cancelled.delete(id);
  }

  #send(message: FromEngine): void {
    const bytes = Buffer.from(`${JSON.stringify(message)}\n`);
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(ENGINE_FD, bytes, done);
    } catch (error) {
      // The caller is gone; what is under way notices at its next phase.
      if ((error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
      this.#isOpen = false;
    }
  }
}

// Signals of the terminal are for the caller, which cancels what it wants to be cancelled; dying of them here would
// leave a checkpoint half written.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const) process.on(signal, () => {});
new Worker().run();
process.exit(0);
