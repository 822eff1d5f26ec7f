import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isInside, runInside } from '../testing/fault-namespace.js';
import type { Fault } from '../testing/fault-order.js';
import { type Behaviour, type StreamTrial, StreamTrials } from '../testing/stream-trial.js';

/**
 * A stream's source is killed when the other end has all of it (and runs it, where it answers), and goes on when not,
 * whenever its controller dies and whatever the other end does. STASIS_FAULTS=full kills at every call of the last part.
 */
const isFull = process.env.STASIS_FAULTS === 'full';
const KILLS = isFull ? 200 : 4;
const NONE: Fault = { kind: 'none' };

function summary({ isWhole, isGone, runs, source, harm }: StreamTrial) {
  return { isWhole, isGone, runs, source, harm };
}

if (!isInside())
  test('faults of streams, in namespaces of their own', () => {
    const { status, output } = runInside(import.meta.url);
    assert.equal(status, 0, output);
  });
else {
  const outcomes: readonly (readonly [Behaviour, StreamTrial['source'], RegExp | undefined])[] = [
    ['listens', 'killed', undefined],
    ['runs it', 'killed', undefined],
    ['fails', 'running', /could not bring the tree up: .*no such pid/],
    ['hangs up in the middle', 'running', /EPIPE|ECONNRESET/],
    ['hangs up at the end', 'running', /gone without a report|EPIPE|ECONNRESET/],
    ['says nothing', 'running', /did not report that the tree stands ready within/],
    ['hangs up when told to go', 'stopped', /did not say whether it has/],
    ['fails when told to go', 'running', /at last/],
    ['says nothing when told to go', 'stopped', /did not say whether it has/],
  ];
  test('the other end decides', async () => {
    await using trials = new StreamTrials();
    for (const [behaviour, expected, message] of outcomes) {
      const { answer, source, harm } = await trials.run(NONE, behaviour);
      assert.deepEqual({ behaviour, source, harm }, { behaviour, source: expected, harm: [] }, answer?.error);
      if (message === undefined) assert.equal(answer?.error, undefined);
      else assert.match(answer?.error ?? '', message);
    }
  });

  test('an end that is cut off when it is ready leaves one tree or the other', async () => {
    await using trials = new StreamTrials();
    const { source, isGone, runs, harm } = await trials.run(NONE, 'hangs up when ready');
    // Whether GONE still found a reader is a matter of time; the tree never is lost.
    assert.ok(source === 'running' || source === 'stopped', source);
    assert.deepEqual({ isGone, runs, harm }, { isGone: false, runs: false, harm: [] });
  });

  for (const behaviour of ['listens', 'runs it'] as const)
    for (const victim of ['controller', 0] as const)
      test(`kill -9 of ${victim === 0 ? 'the guardian' : victim}, and the other end ${behaviour}`, async () => {
        await using trials = new StreamTrials();
        const { answer } = await trials.run(NONE, behaviour);
        const calls = answer?.calls ?? 0;
        assert.ok(calls > 0, answer?.error);
        for (const at of callsToKillAt(calls)) {
          const trial = await trials.run({ kind: 'kill', victim, at, signal: 9 }, behaviour);
          if (isFull) console.log(behaviour, victim, at, calls, JSON.stringify(summary(trial)));
          assert.deepEqual(
            { at, calls, ...summary(trial) },
            { at, calls, ...summary(trial), ...allowed(trial, behaviour) },
          );
        }
      });
}

/** What must be, whatever was killed: two live trees never, none never. */
function allowed(trial: StreamTrial, behaviour: Behaviour) {
  const { isWhole, isGone, runs, source } = trial;
  if (behaviour === 'listens') return { harm: [], source: isWhole ? 'killed' : 'running' };
  if (runs) return { harm: [], isGone: true, source: source === 'stopped' ? 'stopped' : 'killed' };
  return { harm: [], source: isGone ? 'stopped' : 'running' };
}

/** Half of them among the last calls, where the commit is. */
function callsToKillAt(calls: number): number[] {
  const last = Math.max(1, Math.floor(calls * 0.9));
  const some = Math.floor(KILLS / 4);
  const early = Array.from({ length: some }, (_, index) => Math.floor((last * index) / some));
  const late = Array.from({ length: KILLS - some }, (_, index) =>
    Math.floor(last + ((calls - last) * index) / (KILLS - some)),
  );
  return [...new Set([...early, ...late])];
}
