import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PAGE_SIZE } from '../../abi/mman.js';
import type { ImageReader } from '../../image/reader.js';
import { Tape } from '../../tape/tape.js';
import { partsOf, readTogether } from './read-together.js';
import type { Run } from './runs.js';

const reader = {} as ImageReader;

/** Runs of so many pages, one page apart. */
function runsOf(lengths: readonly number[]): Run[] {
  let at = 0x7f00_0000_0000;
  let offset = 0;
  return lengths.map((pages) => {
    const run = { start: at, end: at + pages * PAGE_SIZE, reader, pagesId: 1, offset };
    at = run.end + PAGE_SIZE;
    offset += pages * PAGE_SIZE;
    return run;
  });
}

const sizeOf = (runs: readonly Run[]): number => runs.reduce((sum, { start, end }) => sum + end - start, 0);

test('parts are all of it, in order, and about the same', () => {
  const lengths = fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 40 });
  fc.assert(
    fc.property(lengths, fc.integer({ min: 1, max: 8 }), (pages, readers) => {
      const runs = runsOf(pages);
      const parts = partsOf(runs, readers);
      assert.equal(parts === undefined, sizeOf(runs) < 4 << 20);
      if (parts === undefined) return;
      assert.ok(parts.length <= readers);
      assert.equal(sizeOf(parts.flat()), sizeOf(runs));
      const [first = 0] = parts.map(sizeOf);
      for (const part of parts.slice(0, -1)) assert.equal(sizeOf(part), first);
      assert.ok(sizeOf(parts.at(-1) ?? []) <= first);
      let offset = 0;
      for (const { offset: at, start, end } of parts.flat()) {
        assert.equal(at, offset);
        offset += end - start;
      }
    }),
  );
});

function tapeOf(lengths: readonly number[], readers: number): Tape {
  const tape = new Tape('reading');
  readTogether(tape, 42, runsOf(lengths), { pages: () => 7 }, readers);
  return tape;
}

test('little memory has no helper, and much has one for each processor', () => {
  assert.deepEqual(tapeOf([10], 8).calls, ['preadv']);
  assert.deepEqual(tapeOf([2000], 1).calls, ['madvise', 'preadv', 'futex', 'preadv']);
  const [helped, again] = [
    ['clone3', 'madvise', 'preadv', 'futex', 'waitid'],
    ['futex', 'preadv'],
  ];
  assert.deepEqual(tapeOf([2000], 2).calls, [...helped, ...again, ...again]);
  assert.equal(tapeOf([100_000], 100).calls.filter((call) => call === 'clone3').length, 7);
});

test('nothing that must succeed is played before all helpers are gone', () => {
  const { entries, calls } = tapeOf([5000, 10, 5000], 4);
  const first = calls.indexOf('clone3');
  const end = calls.lastIndexOf('waitid');
  for (const { call, expectation } of entries.slice(first, end))
    assert.ok(call === 'waitid' || expectation === 'any', call);
});

test('scattered pages are read by one, and populated in few calls', () => {
  const scattered = new Array<number>(40_000).fill(1);
  const alone = tapeOf(scattered, 8).calls;
  assert.ok(!alone.includes('clone3'));
  const many = tapeOf(new Array<number>(30_000).fill(40), 1).calls;
  assert.ok(many.filter((call) => call === 'madvise').length <= 4096);
});
