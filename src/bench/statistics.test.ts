import assert from 'node:assert/strict';
import { test } from 'node:test';
import { median, medians } from './statistics.js';

test('medians', () => {
  for (const { values, middle } of [
    { values: [3], middle: 3 },
    { values: [10, 2, 9], middle: 9 },
    { values: [4, 1, 3, 2], middle: 2.5 },
  ])
    assert.equal(median(values), middle);
  assert.ok(Number.isNaN(median([])));
  const records = [
    { a: 1, b: 6 },
    { a: 3, b: 4 },
    { a: 2, b: 5 },
  ];
  assert.deepEqual(medians(['a', 'b'], records), { a: 2, b: 5 });
});
