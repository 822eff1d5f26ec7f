import { workerData } from 'node:worker_threads';
import { GAP } from './journal.js';

/**
 * A thread that looks at the clocks about every millisecond and notes the longest time between two looks: what it missed
 * is how long the process was away. Whoever reads the shared doubles sets them to 0.
 */
const { gaps, sleeper } = workerData as { gaps: SharedArrayBuffer; sleeper: SharedArrayBuffer };
const longest = new Float64Array(gaps);
const word = new Int32Array(sleeper);
const PERIOD_MS = 1;

interface Look {
  readonly monotonic_ms: number;
  readonly day_ms: number;
}

function note(at: number, gap_ms: number): void {
  if (gap_ms > (longest[at] ?? 0)) longest[at] = gap_ms;
}

for (let last: Look | undefined; ; ) {
  const now = { monotonic_ms: performance.now(), day_ms: Date.now() };
  note(GAP.monotonic, now.monotonic_ms - (last?.monotonic_ms ?? now.monotonic_ms));
  note(GAP.day, now.day_ms - (last?.day_ms ?? now.day_ms));
  last = now;
  Atomics.wait(word, 0, 0, PERIOD_MS);
}
