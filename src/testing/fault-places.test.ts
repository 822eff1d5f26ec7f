import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Journal, rangeOf, selectionOf } from './fault-places.js';

const END = Number.POSITIVE_INFINITY;
for (const [text, phase, from, to] of [
  ['120', undefined, 120, 120],
  ['100-180', undefined, 100, 180],
  ['ask', 'ask', 0, END],
  ['give back+7', 'give back', 7, 7],
  ['ask+5-9', 'ask', 5, 9],
] as const)
  test(`place: ${text}`, () => assert.deepEqual(rangeOf(text), { phase, from, to }));

for (const text of ['', '-', 'ask-', '5-', '+5'])
  test(`no place: '${text}'`, () => assert.throws(() => rangeOf(text), /STASIS_FAULT_AT/));

test('what the environment selects', () => {
  const selection = selectionOf({ STASIS_FAULT_SHARD: '2/5', STASIS_FAULT_STRIDE: '8' });
  assert.deepEqual(selection.shard, { index: 1, count: 5 });
  assert.deepEqual([selection.stride, selection.repeat, selection.deadline], [8, 1, END]);
  assert.throws(() => selectionOf({ STASIS_FAULT_SHARD: '2' }), /not like 2\/5/);
  assert.throws(() => selectionOf({ STASIS_FAULT_REPEAT: 'x' }), /no number/);
});

test('a journal goes on where another of its name ended', () => {
  const directory = mkdtempSync(join(tmpdir(), 'stasis-journal-'));
  try {
    const first = new Journal(directory, 'run: signal 9, small');
    first.add('+1', []);
    first.add('+1', ['harm']);
    first.add('+2', []);
    const next = new Journal(directory, 'run: signal 9, small');
    assert.deepEqual([next.times('+1'), next.times('+2'), next.times('+3'), next.size], [2, 1, 0, 3]);
    assert.equal(new Journal(directory, 'another').size, 0);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
