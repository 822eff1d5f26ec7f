import { Worker } from 'node:worker_threads';
import { ImageError } from '../image/index.js';

/**
 * Contents checked while they are loaded: a thread of its own compares every file of an image with its checksum, and
 * the tree is let go only when it is through. Costs the restore nothing as long as a second processor is free.
 */
const STATE = 0;
const LENGTH = 1;
const HEADER_BYTES = 8;
const TEXT_BYTES = 8192;
const RUNNING = 0;

/** What the thread is told, and the memory it answers in: state, length of the text, text as JSON. */
export interface VerifierData {
  readonly directory: string;
  readonly trust: boolean;
  readonly answer: SharedArrayBuffer;
}

export interface Finding {
  readonly file: string;
  readonly message: string;
  readonly offset?: number;
}

export class Verification implements Disposable {
  readonly #answer = new SharedArrayBuffer(HEADER_BYTES + TEXT_BYTES);
  readonly #worker: Worker;

  constructor(directory: string, trust: boolean) {
    const data: VerifierData = { directory, trust, answer: this.#answer };
    this.#worker = new Worker(new URL('./verifier.js', import.meta.url), { workerData: data });
    this.#worker.unref();
  }

  /** Wait for the end. @throws ImageError with the first problem */
  join(): void {
    const words = new Int32Array(this.#answer);
    Atomics.wait(words, STATE, RUNNING);
    const length = words[LENGTH] ?? 0;
    if (length === 0) return;
    const text = Buffer.from(new Uint8Array(this.#answer, HEADER_BYTES, length)).toString();
    const { file, message, offset } = JSON.parse(text) as Finding;
    throw new ImageError(file, message, offset === undefined ? {} : { offset });
  }

  [Symbol.dispose](): void {
    void this.#worker.terminate();
  }
}

/** For the thread: say what was found, if anything, and that it is through. */
export function answer(buffer: SharedArrayBuffer, finding: Finding | undefined): void {
  const words = new Int32Array(buffer);
  if (finding !== undefined) {
    const text = Buffer.from(
      JSON.stringify({ ...finding, message: finding.message.slice(0, TEXT_BYTES / 4) }),
    );
    new Uint8Array(buffer, HEADER_BYTES).set(text.subarray(0, TEXT_BYTES));
    words[LENGTH] = Math.min(text.length, TEXT_BYTES);
  }
  Atomics.store(words, STATE, RUNNING + 1);
  Atomics.notify(words, STATE);
}
