import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { type Answer, GAP, Journal } from './journal.js';
import { type Members, startMembers } from './members.js';
import type { Settings } from './settings.js';

/**
 * The server of the demo, a plain program that knows nothing of checkpoints. At every beat it asks its threads, its worker
 * processes, a Python pair and a shell pipeline, and writes a record of their answers.
 */
const settings = JSON.parse(process.argv[2] ?? '') as Settings;

/** Counted in memory only; 1 as long as this is the process that was started. */
let starts = 0;
starts++;

const remembered: string[] = [];
const questions: string[] = [];

const journalFd = openSync(settings.journal, 'ax', 0o600);
const journal = new Journal((line) => void writeSync(journalFd, line));

/** Opened for writing too, so that it never comes to its end. */
const input = new Socket({
  fd: openSync(settings.questions, constants.O_RDWR | constants.O_NONBLOCK),
  readable: true,
  writable: false,
});
createInterface({ input }).on('line', (line) => questions.push(line));

const gaps = new Float64Array(new SharedArrayBuffer(16));
const heart = new Worker(new URL('./heart.js', import.meta.url), {
  workerData: { gaps: gaps.buffer, sleeper: new SharedArrayBuffer(4) },
});

async function beatOnce(beat: number, { all, python }: Members): Promise<void> {
  const answers: Record<string, Answer> = {};
  await Promise.all(
    all.map(async (member) => {
      answers[member.name] = await member.step(beat);
    }),
  );
  const gap = { day_ms: gaps[GAP.day] ?? 0, monotonic_ms: gaps[GAP.monotonic] ?? 0 };
  gaps.fill(0);
  const signals = { ...(python?.signals ?? { sent: 0, handled: 0, answered: 0 }) };
  journal.add({ kind: 'beat', beat, at_ms: Number(process.hrtime.bigint()) / 1e6, gap, answers, signals });
}

/** Questions: `remember WORD`, `report`, `stop`. Answers whether to go on. */
async function answer(question: string, beat: number, { all }: Members): Promise<boolean> {
  const [verb, word] = question.split(' ');
  if (verb === 'stop') return false;
  if (verb === 'remember' && word !== undefined) remembered.push(word);
  const memory: Record<string, string> = {};
  for (const member of all) {
    const hash = await member.hash();
    if (hash !== undefined) memory[member.name] = hash;
  }
  journal.add({ kind: 'report', question, beat, remembered, memory, starts });
  return true;
}

async function serve(): Promise<void> {
  const members = await startMembers(settings);
  for (let beat = 1; ; beat++) {
    await beatOnce(beat, members);
    for (let next = questions.shift(); next !== undefined; next = questions.shift())
      if (!(await answer(next, beat, members))) {
        for (const member of members.all) member.end();
        return;
      }
    await pause(settings.pause_ms);
  }
}

try {
  await serve();
  await heart.terminate();
  closeSync(journalFd);
  process.exit(0);
} catch (error) {
  console.error(error);
  process.exit(1);
}
