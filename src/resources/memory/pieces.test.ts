import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import fc from 'fast-check';
import {
  createMessage,
  encodeImage,
  encodePagemap,
  ImageReader,
  PAGE_BYTES,
  PE_PRESENT,
} from '../../image/index.js';
import { readMaps } from '../../kernel/procfs/maps.js';
import { holdsPrivateData, Pagemap } from '../../kernel/procfs/pagemap.js';
import { readRemote } from '../../kernel/remote.js';
import { Tape } from '../../tape/tape.js';
import { functionsOf } from './elf.js';
import { compare, cut, outside } from './inherit.js';
import { type Run, readRunsTo, runsOf } from './runs.js';
import { intersect, readSpans, type Span, scanPages } from './scan.js';
import { parseSegments } from './sysv.js';

const PAGES = 40;

/** Ascending spans apart from each other, of small numbers. */
const spans = fc
  .array(fc.boolean(), { minLength: PAGES, maxLength: PAGES })
  .map((bits) => spansOf(new Set(bits.flatMap((bit, index) => (bit ? [index] : [])))));

function spansOf(pages: ReadonlySet<number>): Span[] {
  const found: Span[] = [];
  for (let page = 0; page <= PAGES; page++) {
    if (pages.has(page) && !pages.has(page - 1)) {
      let end = page;
      while (pages.has(end)) end++;
      found.push({ start: page * PAGE_BYTES, end: end * PAGE_BYTES });
    }
  }
  return found;
}

function pagesOf(list: readonly Span[]): Set<number> {
  const pages = new Set<number>();
  for (const { start, end } of list)
    for (let at = start; at < end; at += PAGE_BYTES) pages.add(at / PAGE_BYTES);
  return pages;
}

test('spans are cut by spans', () => {
  fc.assert(
    fc.property(spans, spans, (a, b) => {
      const both = new Set([...pagesOf(a)].filter((page) => pagesOf(b).has(page)));
      assert.deepEqual(pagesOf(intersect(a, b)), both);
      const runs = a.map((span) => ({ ...span, offset: span.start }) as Run);
      assert.deepEqual(pagesOf(cut(runs, b)), both);
      const rest = new Set([...pagesOf(a)].filter((page) => !both.has(page)));
      assert.deepEqual(pagesOf(outside(runs, b)), rest);
      for (const run of [...cut(runs, b), ...outside(runs, b)]) assert.equal(run.offset, run.start);
    }),
  );
});

/** An image of nothing but the pages of two processes, each page filled with its number. */
function withImage(pages: readonly ReadonlyMap<number, number>[], use: (reader: ImageReader) => void): void {
  const directory = mkdtempSync(join(tmpdir(), 'stasis-pages-'));
  try {
    writeFileSync(
      join(directory, 'inventory.img'),
      encodeImage('inventory', [{ message: createMessage('inventory', { imgVersion: 2 }) }]),
    );
    pages.forEach((contents, index) => {
      const list = spansOf(new Set(contents.keys()));
      const entries = list.map(({ start, end }) => ({
        vaddr: BigInt(start),
        nrPages: (end - start) / PAGE_BYTES,
        flags: PE_PRESENT,
      }));
      const sorted = [...contents].sort(([a], [b]) => a - b);
      writeFileSync(join(directory, `pagemap-${index + 1}.img`), encodePagemap(index + 1, entries));
      const bytes = Buffer.concat(sorted.map(([, value]) => Buffer.alloc(PAGE_BYTES, value)));
      writeFileSync(join(directory, `pages-${index + 1}.img`), bytes);
    });
    using reader = ImageReader.open(directory, { trust: true });
    use(reader);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const contents = fc
  .array(fc.option(fc.integer({ min: 1, max: 2 }), { nil: 0, freq: 2 }), {
    minLength: PAGES,
    maxLength: PAGES,
  })
  .map(
    (values) =>
      new Map(values.flatMap((value, page): [number, number][] => (value === 0 ? [] : [[page, value]]))),
  );

test('what a child reads and drops makes its own pages of its parent’s', () => {
  fc.assert(
    fc.property(contents, contents, (parent, child) => {
      withImage([parent, child], (reader) => {
        const { load, drop } = compare(runsOf(reader, 2), runsOf(reader, 1));
        const result = new Map(parent);
        for (const page of pagesOf(drop)) result.delete(page);
        for (const page of pagesOf([...load])) {
          assert.notEqual(parent.get(page), child.get(page), 'equal pages are not read');
          result.set(page, child.get(page) ?? 0);
        }
        const sorted = (map: ReadonlyMap<number, number>) => [...map].sort(([a], [b]) => a - b);
        assert.deepEqual(sorted(result), sorted(child));
      });
    }),
    { numRuns: 50 },
  );
});

test('a child reads what it does not share, where that is known', () => {
  fc.assert(
    fc.property(contents, contents, contents, (parent, child, some) => {
      const isShared = (page: number) => parent.get(page) === child.get(page) && some.has(page);
      const pages = [...child.keys()].filter(isShared).sort((a, b) => a - b);
      const shared = pages.map((page) => ({ start: page * PAGE_BYTES, end: (page + 1) * PAGE_BYTES }));
      withImage([parent, child], (reader) => {
        const { load, drop } = compare(runsOf(reader, 2), runsOf(reader, 1), shared);
        const sorted = (keys: Iterable<number>) => [...keys].sort((a, b) => a - b);
        const own = [...child.keys()].filter((page) => !isShared(page));
        assert.deepEqual(sorted(pagesOf([...load])), sorted(own));
        const gone = [...parent.keys()].filter((page) => !child.has(page));
        assert.deepEqual(sorted(pagesOf(drop)), sorted(gone));
      });
    }),
    { numRuns: 50 },
  );
});

test('runs are read by few calls', () => {
  const reader = {} as ImageReader;
  const runs: Run[] = [];
  for (let index = 0; index < 300_000; index++) {
    const start = 0x7f00_0000_0000 + index * 2 * PAGE_BYTES;
    runs.push({ start, end: start + PAGE_BYTES, reader, pagesId: 1, offset: index * PAGE_BYTES });
  }
  const tape = new Tape('300,000 runs');
  readRunsTo(tape, runs, { pages: () => 7 });
  assert.equal(tape.entries.length, Math.ceil(300_000 / 1024));
  const [first] = tape.entries;
  assert.deepEqual([first?.call, first?.expectation], ['preadv', 1024 * PAGE_BYTES]);
  const huge = new Tape('3 GiB in one run');
  readRunsTo(huge, [{ start: 0, end: 3 * 2 ** 30, reader, pagesId: 1, offset: 0 }], { pages: () => 7 });
  assert.equal(huge.entries.length, 3);
});

test('both ways of finding pages agree', () => {
  const maps = readMaps(process.pid).filter(
    ({ perms, path, inode }) => perms[3] === 'p' && inode === 0n && !path.startsWith('[v'),
  );
  const ranges = maps.map(({ start, end }) => ({ start: Number(start), end: Number(end) }));
  // A page this process has not written since, so that both see the same: its executable's data.
  const quiet = ranges.slice(0, 1);
  using pagemap = new Pagemap(process.pid);
  const scanned = intersect([...scanPages(process.pid, ranges).pages], quiet);
  const read = intersect(readSpans(pagemap, quiet, holdsPrivateData), quiet);
  // The old way cannot tell the page of zeros.
  const missed = [...pagesOf(scanned)].filter((page) => !pagesOf(read).has(page));
  assert.deepEqual(missed, []);
});

test('functions of this kernel’s vDSO', () => {
  const vdso = readMaps(process.pid).find(({ path }) => path === '[vdso]');
  assert.ok(vdso);
  const functions = functionsOf(readRemote(process.pid, vdso.start, Number(vdso.end - vdso.start)));
  assert.ok(functions.has('__vdso_clock_gettime'));
  assert.throws(() => functionsOf(new Uint8Array(4096)), /no ELF object/);
});

test('segments as /proc/sysvipc/shm lists them', () => {
  const text = `       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap
         0      32769  1600                 16484   100   200      2     5     6     5     6 1700000000          0 1700000000                 20480                     0
-559038737          7   666                  4096   100   200      2     0     0     0     0 1700000000          0 1700000000                 20480                     0
`;
  assert.deepEqual(parseSegments(text), [
    { key: 0, shmid: 32769, mode: 0o1600, size: 16484, uid: 5, gid: 6 },
    { key: -559038737, shmid: 7, mode: 0o666, size: 4096, uid: 0, gid: 0 },
  ]);
  assert.throws(() => parseSegments('head\nnot a segment'), /not a segment/);
});
