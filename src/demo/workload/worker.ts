import { createInterface } from 'node:readline';
import { ballastOf, Party } from './party.js';

/** A worker process: a line asks for a step or for the hash of its memory, a line answers. */
const [seed = '', name = '', pages = ''] = process.argv.slice(2);
const party = new Party(ballastOf(seed, name, Number(pages)));
createInterface({ input: process.stdin }).on('line', (line) => {
  const [verb, beat] = line.split(' ');
  process.stdout.write(
    verb === 'step' ? `${process.pid} ${party.step(Number(beat))}\n` : `${party.memoryHash}\n`,
  );
});
