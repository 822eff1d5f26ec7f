import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { ImageReader } from '../../image/index.js';
import { criuImage } from '../../image/testing.js';
import type { ProcessImage } from '../contract.js';
import { sharedWith } from './shared-pages.js';

const PAGE = 4096;

/** What an image with these notes says that process 2 shares with the process `parent`. */
function shared(notes: unknown, parent: number): unknown {
  const directory = mkdtempSync(join(tmpdir(), 'stasis-shared-'));
  try {
    using made = ImageReader.open(criuImage('tiny'), { trust: true });
    writeFileSync(join(directory, 'inventory.img'), made.bytes('inventory.img') ?? '', { mode: 0o600 });
    if (notes !== undefined)
      writeFileSync(join(directory, 'stasis-shared-pages.json'), JSON.stringify(notes), { mode: 0o600 });
    using reader = ImageReader.open(directory, { trust: true });
    const image = (pid: number) => ({ pid, reader }) as unknown as ProcessImage;
    return sharedWith(image(2), image(parent));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

test('pages that the image says are shared', () => {
  const notes = { 2: { with: 1, pages: [16, 1, 20, 4] } };
  const spans = [
    { start: 16 * PAGE, end: 17 * PAGE },
    { start: 20 * PAGE, end: 24 * PAGE },
  ];
  assert.deepEqual(shared(notes, 1), spans);
  assert.equal(shared(notes, 3), undefined, 'it is forked from another one');
  assert.equal(shared({}, 1), undefined);
  assert.equal(shared(undefined, 1), undefined, 'an image of CRIU');
});

test('hostile notes', () => {
  for (const item of [
    [],
    5,
    { with: 1 },
    { with: 'x', pages: [] },
    { with: 1, pages: [-1, 1] },
    { with: 1, pages: [1.5, 1] },
    { with: 1, pages: [1, 2 ** 60] },
    { with: 1, pages: [5, 2, 6, 1] },
    { with: 1, pages: ['1', 1] },
  ])
    assert.throws(() => shared({ 2: item }, 1), { name: 'ImageError' }, JSON.stringify(item));
  assert.throws(() => shared([1], 1), { name: 'ImageError' });
});
