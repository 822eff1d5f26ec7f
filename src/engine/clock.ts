import type { Phase } from './options.js';

/** Milliseconds on the monotonic clock. */
export function now_ms(): number {
  return performance.now();
}

/** Times the phases of a dump or restore: each lasts until the next begins. */
export class PhaseClock {
  readonly phases: Phase[] = [];
  #name: string | undefined;
  #since = 0;
  readonly #announce: ((name: string) => void) | undefined;

  constructor(announce?: (name: string) => void) {
    this.#announce = announce;
  }

  start(name: string): void {
    this.stop();
    this.#name = name;
    this.#since = now_ms();
    this.#announce?.(name);
  }

  stop(): void {
    if (this.#name !== undefined) this.phases.push({ name: this.#name, duration_ms: now_ms() - this.#since });
    this.#name = undefined;
  }
}
