import { workerData } from 'node:worker_threads';

/**
 * A thread that looks at the clock about every millisecond and notes the longest time between two looks: what it missed
 * is how long the process was away. Word 0 of the shared doubles is that time in ms; whoever reads it sets it to 0.
 */
const { gaps, sleeper } = workerData as { gaps: SharedArrayBuffer; sleeper: SharedArrayBuffer };
const longest = new Float64Array(gaps);
const word = new Int32Array(sleeper);
const PERIOD_MS = 1;
for (let last = performance.now(); ; ) {
  Atomics.wait(word, 0, 0, PERIOD_MS);
  const now = performance.now();
  if (now - last > (longest[0] ?? 0)) longest[0] = now - last;
  last = now;
}
