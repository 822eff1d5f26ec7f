import assert from 'node:assert/strict';
import test from 'node:test';
import { ImageReader } from '../../image/index.js';
import { criuImage } from '../../image/testing.js';
import { printTape } from '../../tape/print.js';
import { Tape } from '../../tape/tape.js';
import { type ProcessImage, type Taker, VDSO_ROOM } from '../contract.js';
import { memory } from './index.js';

const WORKSPACE = { address: 0x1000_0000n, size: 0x100_0000n };

/** The one process of an image that CRIU 4.2 made. */
function imageOf(reader: ImageReader): ProcessImage {
  const [task] = reader.read('pstree');
  assert.ok(task);
  const { pid } = task;
  const mm = reader.readOne('mm', pid);
  return {
    pid,
    parent: undefined,
    children: [],
    core: reader.readOne('core', pid),
    mm,
    reader,
    name: `pid ${pid}`,
  };
}

function taking(tape: Tape): { taker: Taker; keys: string[] } {
  const keys: string[] = [];
  const taker: Taker = {
    take(key) {
      keys.push(key);
      return tape.call('pidfd_getfd', [9, 100, 0]);
    },
  };
  return { taker, keys };
}

test('the plan of a process and of its child', () => {
  using reader = ImageReader.open(criuImage('tiny'), { trust: true });
  const parent = imageOf(reader);
  // Nothing has changed since the fork.
  const child = { ...parent, parent };
  const first = new Tape('parent');
  const taken = taking(first);
  memory.load(parent, first, taken.taker, WORKSPACE, memory.stemMaps());
  const listing = printTape(first);
  const luggage = (WORKSPACE.address + WORKSPACE.size - BigInt(VDSO_ROOM)).toString(16);
  assert.match(
    listing,
    new RegExp(`mremap\\(<stem's \\[vvar\\]>, \\d+, \\d+, MREMAP_MAYMOVE\\|MREMAP_FIXED, 0x${luggage}\\)`),
  );
  assert.match(listing, /munmap\(NULL, 268435456\)/);
  assert.match(
    listing,
    /mmap\(0x[0-9a-f]+, \d+, PROT_READ\|PROT_WRITE, MAP_PRIVATE\|MAP_FIXED\|MAP_ANONYMOUS/,
  );
  assert.match(listing, /preadv\(\[\d+\], /);
  assert.equal(new Set(taken.keys).size, taken.keys.length, 'every key is taken once');
  assert.ok(taken.keys.some((key) => /^image:pages-\d+\.img$/.test(key)));
  const closes = first.entries.filter(({ call }) => call === 'close').length;
  assert.equal(closes, taken.keys.length);

  const second = new Tape('child');
  const childTaken = taking(second);
  memory.load(child, second, childTaken.taker, WORKSPACE, parent);
  const mapped = (tape: Tape) => tape.entries.filter(({ call }) => call === 'mmap').length;
  assert.ok(mapped(second) < mapped(first), 'what is inherited is not mapped again');
  const read = (tape: Tape) =>
    tape.entries.reduce(
      (sum, { call, expectation }) => sum + (call === 'preadv' ? Number(expectation) : 0),
      0,
    );
  assert.ok(read(first) > 0);
  assert.equal(read(second), 0, 'equal pages are not read again');

  const last = new Tape('finish');
  memory.finish(child, last, taking(last).taker, WORKSPACE);
  assert.match(printTape(last), /prctl\(PR_SET_MM, /);
});
