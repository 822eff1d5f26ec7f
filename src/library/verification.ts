import { Worker } from 'node:worker_threads';
import {
  type ChecksumProblem as Finding,
  ImageError,
  ImageReader,
  readChecksums,
  verifyChecksums,
} from '../image/index.js';

/**
 * Contents checked while they are loaded: a thread of its own compares every file of an image with its checksum, and
 * the tree is let go only when it is through. Costs the restore nothing as long as a second processor is free.
 */
const STATE = 0;
const LENGTH = 1;
const BEAT = 2;
const HEADER_BYTES = 12;
const TEXT_BYTES = 8192;
const WAITING = 0;
const RUNNING = 1;
const DONE = 2;

/** A thread that has not begun by then, for want of memory or of its program's file, will not be waited for. */
const PATIENCE_MS = 2000;

/**
 * Nor one that has not got through another chunk, a MiB at most, by then: one that ran out of memory cannot say so to
 * who waits. One that is only slow, and left alone with it, does no harm.
 */
const STANDSTILL_MS = 10_000;

/** What the thread is told, and the memory it answers in: state, length of the text, chunks it has been through, text as JSON. */
export interface VerifierData {
  readonly directory: string;
  readonly trust: boolean;
  readonly answer: SharedArrayBuffer;
}

export class Verification implements Disposable {
  readonly #data: VerifierData;
  readonly #worker: Worker;
  readonly #standstill_ms: number;

  /** `program`: what the thread runs. */
  constructor(
    directory: string,
    trust: boolean,
    program = new URL('./verifier.js', import.meta.url),
    standstill_ms = STANDSTILL_MS,
  ) {
    this.#data = { directory, trust, answer: new SharedArrayBuffer(HEADER_BYTES + TEXT_BYTES) };
    this.#standstill_ms = standstill_ms;
    this.#worker = new Worker(program, { workerData: this.#data });
    // Who waits does the work of a thread that could not be started, or did not get to its end.
    this.#worker.on('error', () => undefined);
    this.#worker.unref();
  }

  /** Wait for the end. @throws ImageError with the first problem */
  join(): void {
    const finding = this.#hasAnswered() ? read(this.#data.answer) : findingIn(this.#data);
    if (finding === undefined) return;
    const { file, message, offset } = finding;
    throw new ImageError(file, message, offset === undefined ? {} : { offset });
  }

  /** Waits as long as the thread gets on; false where it will not answer. */
  #hasAnswered(): boolean {
    const words = new Int32Array(this.#data.answer);
    Atomics.wait(words, STATE, WAITING, PATIENCE_MS);
    // One that comes late finds that it has begun.
    if (Atomics.compareExchange(words, STATE, WAITING, RUNNING) === WAITING) return false;
    for (;;) {
      const beat = Atomics.load(words, BEAT);
      const isOver = Atomics.wait(words, STATE, RUNNING, this.#standstill_ms) !== 'timed-out';
      if (isOver) return true;
      if (Atomics.load(words, BEAT) === beat) return false;
    }
  }

  [Symbol.dispose](): void {
    void this.#worker.terminate();
  }
}

/** Look at everything, and leave in `answer` what was found; nothing is done where another thread has begun to. */
export function verify(data: VerifierData): void {
  const words = new Int32Array(data.answer);
  if (Atomics.compareExchange(words, STATE, WAITING, RUNNING) !== WAITING) return;
  Atomics.notify(words, STATE);
  const finding = findingIn(data);
  if (finding !== undefined) write(data.answer, finding);
  Atomics.store(words, STATE, DONE);
  Atomics.notify(words, STATE);
}

function findingIn({ directory, trust, answer }: VerifierData): Finding | undefined {
  const words = new Int32Array(answer);
  try {
    return firstProblem(directory, trust, () => Atomics.add(words, BEAT, 1));
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return error instanceof ImageError ? findingOf(error) : { file: directory, message };
  }
}

function firstProblem(directory: string, trust: boolean, beat: () => void): Finding | undefined {
  using reader = ImageReader.open(directory, { trust });
  reader.verifyOwn(beat);
  const sums = readChecksums(reader);
  return sums === undefined ? undefined : verifyChecksums(reader, sums, beat)[0];
}

function findingOf({ file, offset, message }: ImageError): Finding {
  const said = message.slice(message.indexOf(': ') + 2);
  return offset === undefined ? { file, message: said } : { file, message: said, offset };
}

function write(buffer: SharedArrayBuffer, finding: Finding): void {
  const short = { ...finding, message: finding.message.slice(0, TEXT_BYTES / 4) };
  const text = Buffer.from(JSON.stringify(short)).subarray(0, TEXT_BYTES);
  new Uint8Array(buffer, HEADER_BYTES).set(text);
  new Int32Array(buffer)[LENGTH] = text.length;
}

function read(buffer: SharedArrayBuffer): Finding | undefined {
  const length = new Int32Array(buffer, 0, HEADER_BYTES / 4)[LENGTH] ?? 0;
  if (length === 0) return undefined;
  return JSON.parse(Buffer.from(new Uint8Array(buffer, HEADER_BYTES, length)).toString()) as Finding;
}
