import { isatty } from 'node:tty';
import type { Progress } from '../library/engine.js';
import { writeTo } from './output.js';
import { formatTime } from './table.js';

/** A line on the terminal that says what is being done, for whatever takes longer than a second. */
export class ProgressLine implements Disposable {
  readonly #what: string;
  readonly #start = performance.now();
  #phase = 'start';
  #isShown = false;
  readonly #timer: NodeJS.Timeout | undefined;

  constructor(what: string) {
    this.#what = what;
    this.#timer = isatty(STDERR) ? setInterval(() => this.#show(), INTERVAL_MS) : undefined;
    this.#timer?.unref();
  }

  readonly update = ({ phase }: Progress): void => {
    this.#phase = phase;
  };

  #show(): void {
    const elapsed_ms = performance.now() - this.#start;
    if (elapsed_ms < QUIET_MS) return;
    this.#isShown = true;
    writeTo(STDERR, `\r${CLEAR}${this.#what}: ${this.#phase} (${formatTime(elapsed_ms)})`);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    if (this.#isShown) writeTo(STDERR, `\r${CLEAR}`);
    this.#isShown = false;
  }
}

const STDERR = 2;
const QUIET_MS = 1000;
const INTERVAL_MS = 200;
/** Erase to the end of the line. */
const CLEAR = '\u001b[K';
