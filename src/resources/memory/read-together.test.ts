import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { PAGE_SIZE } from '../../abi/mman.js';
import { SIGKILL } from '../../abi/signal.js';
import type { ImageReader } from '../../image/reader.js';
import { readRemote } from '../../kernel/remote.js';
import { attempt } from '../../kernel/syscall.js';
import { waitFor } from '../../kernel/wait.js';
import { type Actor, LostTaskError, play, TapeError } from '../../tape/play.js';
import { startStem } from '../../tape/stem.js';
import { Tape } from '../../tape/tape.js';
import { partsOf, readTogether } from './read-together.js';
import type { Run } from './runs.js';
import { inPidNamespace } from './testing/trial.js';

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

if (!inPidNamespace(import.meta.url)) {
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
} else {
  const WORKSPACE = { address: 0x1000_0000_0000n, size: 1n << 20n };
  const PAGES = 16 * 1024;
  const HELPERS = 3;

  /** A stem reads a file of so many pages, its number in each, with helpers. */
  const reading = (pages: number, meanwhile: (stem: Actor) => void, then: (stem: Actor) => void) => {
    const file = join(tmpdir(), `stasis-reading-${process.pid}`);
    const content = new Float64Array((pages * PAGE_SIZE) / 8);
    for (let page = 0; page < pages; page++) content.fill(page + 1, page * 512, (page + 1) * 512);
    writeFileSync(file, content);
    const stem = startStem({ workspace: WORKSPACE, sliceSize: 1 << 19, name: 'reader' });
    try {
      const tape = new Tape('memory');
      const start = 0x7000_0000_0000;
      tape.call('mmap', [start, PAGES * PAGE_SIZE, 3, 0x32, -1, 0], start);
      const fd = tape.call('openat', [-100, tape.string(file), 0, 0]);
      const runs = [{ start, end: start + PAGES * PAGE_SIZE, reader, pagesId: 1, offset: 0 }];
      readTogether(tape, stem.tid, runs, { pages: () => fd }, HELPERS + 1);
      play([{ actor: stem, tape }], () => meanwhile(stem));
      const found = readRemote(stem.tid, BigInt(start), PAGES * PAGE_SIZE);
      assert.ok(
        Buffer.from(found.buffer, found.byteOffset, found.length).equals(Buffer.from(content.buffer)),
      );
    } finally {
      try {
        then(stem);
      } finally {
        attempt('kill', [stem.tid, SIGKILL]);
        while (waitFor(stem.tid).kind === 'stopped');
        rmSync(file);
      }
    }
  };

  const helpersOf = (stem: Actor): number[] =>
    readFileSync(`/proc/${stem.tid}/task/${stem.tid}/children`, 'utf8')
      .split(' ')
      .filter(Boolean)
      .map(Number);
  const hasNone = (stem: Actor): void => assert.deepEqual(helpersOf(stem), []);
  const everybody = (): number[] =>
    readdirSync('/proc')
      .map(Number)
      .filter((pid) => pid > 0);

  /** Waits for some helpers; they may be done before they are seen. */
  const seen = (stem: Actor, count: number): number[] => {
    for (const deadline = Date.now() + 500; ; ) {
      const helpers = helpersOf(stem);
      if (helpers.length >= count || Date.now() > deadline) return helpers;
    }
  };

  test('a stem and its helpers read all of it', () => reading(PAGES, () => undefined, hasNone));

  test('what a helper could not read that was killed is read again', () => {
    let killed = 0;
    const kill = (stem: Actor): void => {
      for (const pid of seen(stem, HELPERS)) if (attempt('kill', [pid, SIGKILL]) === 0) killed++;
    };
    for (let round = 0; round < 5; round++) reading(PAGES, kill, hasNone);
    assert.ok(killed > 0);
  });

  test('a file that is too short is an error, when all helpers are gone', () => {
    assert.throws(() => reading(PAGES - 1, () => undefined, hasNone), TapeError);
    assert.throws(() => reading(100, () => undefined, hasNone), TapeError);
  });

  test('helpers die with the one whose they are', () => {
    const before = everybody();
    for (let round = 0; round < 20; round++) {
      const kill = (stem: Actor): void => {
        seen(stem, (round % HELPERS) + 1);
        attempt('kill', [stem.tid, SIGKILL]);
      };
      assert.throws(() => reading(PAGES, kill, () => undefined), LostTaskError);
      const left = (): number[] => everybody().filter((pid) => !before.includes(pid));
      for (const deadline = Date.now() + 10_000; left().length > 0; )
        assert.ok(Date.now() < deadline, `${left()} are left`);
    }
  });
}
