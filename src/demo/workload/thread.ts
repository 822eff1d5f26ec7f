import { parentPort, workerData } from 'node:worker_threads';
import type { ThreadData } from './members.js';
import { Party } from './party.js';

/** A thread of the server: waits on a futex for a beat, and takes its step through shared memory. */
const { control, ballast } = workerData as ThreadData;
const words = new Int32Array(control);
const party = new Party(new Uint8Array(ballast));
for (let seen = 0; ; seen++) {
  Atomics.wait(words, 0, seen);
  parentPort?.postMessage(party.step(Atomics.load(words, 1)));
}
