import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import { toBinary } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { ImageError } from './errors.js';
import { MAGIC } from './magic.js';
import {
  checkPagemap,
  decodePagemap,
  encodePagemap,
  PAGE_BYTES,
  type PagemapEntry,
  PE_LAZY,
  PE_PARENT,
  PE_PRESENT,
} from './pagemap.js';
import { iteratePages } from './pages.js';
import { ImageReader } from './reader.js';
import { type pagemap_entry, pagemap_entrySchema } from './schema/generated/memory_pb.js';
import { CRIU_IMAGES, criuImage, TemporaryDirectory } from './testing.js';

const present = (vaddr: bigint, nrPages: number): PagemapEntry => ({ vaddr, nrPages, flags: PE_PRESENT });
const parent = (vaddr: bigint, nrPages: number): PagemapEntry => ({ vaddr, nrPages, flags: PE_PARENT });

const valid: { name: string; entries: PagemapEntry[] }[] = [
  { name: 'no run', entries: [] },
  { name: 'a page at zero', entries: [present(0n, 1)] },
  { name: 'runs that touch', entries: [present(0x1000n, 1), present(0x2000n, 5), parent(0x7000n, 1)] },
  {
    name: 'addresses above 2^53',
    entries: [present(0x00ff_ffff_ffff_f000n, 1), present(0xffff_8000_0000_0000n, 9)],
  },
  { name: 'the last page', entries: [present(0xffff_ffff_ffff_f000n, 1)] },
  { name: 'a lazy run', entries: [{ vaddr: 0x1000n, nrPages: 3, flags: PE_LAZY }] },
  { name: 'a run of 4 TiB', entries: [present(0x1000n, 2 ** 30)] },
];

const invalid: { name: string; entries: PagemapEntry[]; message: RegExp }[] = [
  { name: 'an empty run', entries: [present(0n, 0)], message: /has 0 pages/ },
  { name: 'half a page', entries: [present(0x800n, 1)], message: /does not begin on a page/ },
  { name: 'overlap', entries: [present(0x1000n, 2), present(0x2000n, 1)], message: /overlaps/ },
  { name: 'wrong order', entries: [present(0x2000n, 1), present(0x1000n, 1)], message: /out of order/ },
  { name: 'no place', entries: [{ vaddr: 0n, nrPages: 1, flags: 0 }], message: /nowhere/ },
  {
    name: 'two places',
    entries: [{ vaddr: 0n, nrPages: 1, flags: PE_PARENT | PE_PRESENT }],
    message: /both here/,
  },
  {
    name: 'the end passed',
    entries: [present(0xffff_ffff_ffff_f000n, 2)],
    message: /past the address space/,
  },
];

/** A pagemap as the general codec writes it. */
function slowly(entries: readonly Omit<pagemap_entry, '$typeName'>[]): Uint8Array {
  const head = encodePagemap(1, []);
  const parts = entries.flatMap((entry) => {
    const bytes = toBinary(pagemap_entrySchema, { $typeName: 'pagemap_entry', ...entry });
    return [Uint8Array.of(bytes.length, 0, 0, 0), bytes];
  });
  return Buffer.concat([head, ...parts]);
}

describe('pagemaps', () => {
  for (const { name, entries } of valid) {
    it(`with ${name} come back`, () => {
      const pagemap = decodePagemap(encodePagemap(7, entries), 'p');
      assert.equal(pagemap.pagesId, 7);
      assert.deepEqual([...pagemap.entries], entries);
      checkPagemap(pagemap);
      const general = entries.map((entry) => ({
        vaddr: entry.vaddr,
        nrPages: BigInt(entry.nrPages),
        flags: entry.flags,
        compatNrPages: 0,
      }));
      assert.deepEqual(
        Buffer.from(encodePagemap(1, entries)),
        slowly(general as Omit<pagemap_entry, '$typeName'>[]),
      );
    });
  }

  for (const { name, entries, message } of invalid) {
    it(`with ${name} are refused`, () => {
      assert.throws(() => encodePagemap(1, entries), message);
      const positions = entries.map((_, index) => index * 20);
      const offset = (entries.length - 1) * 20;
      assert.throws(
        () => checkPagemap({ file: 'p', pagesId: 1, entries, positions }),
        (error: unknown) =>
          error instanceof ImageError && message.test(error.message) && error.offset === offset,
      );
    });
  }

  it('must account for the pages file', () => {
    const pagemap = decodePagemap(encodePagemap(1, [present(0n, 2), parent(0x4000n, 9)]), 'p');
    checkPagemap(pagemap, 2 * PAGE_BYTES);
    assert.throws(() => checkPagemap(pagemap, 2 * PAGE_BYTES - 1), /accounts for 8192 bytes of pages-1.img/);
  });

  it('of older writers are understood', () => {
    const old = [
      { vaddr: 0x1000n, compatNrPages: 3, inParent: true },
      { vaddr: 0x9000n, compatNrPages: 2 },
    ];
    const pagemap = decodePagemap(slowly(old as Omit<pagemap_entry, '$typeName'>[]), 'p');
    assert.deepEqual([...pagemap.entries], [parent(0x1000n, 3), present(0x9000n, 2)]);
  });

  for (const name of CRIU_IMAGES) {
    for (const file of readdirSync(criuImage(name)).filter((f) => f.startsWith('pagemap-'))) {
      it(`${name}/${file} of CRIU 4.2 comes back byte for byte`, () => {
        const bytes = readFileSync(path.join(criuImage(name), file));
        const { pagesId, entries } = decodePagemap(bytes, file);
        assert.ok(entries.length > 0);
        assert.deepEqual(Buffer.from(encodePagemap(pagesId, entries)), bytes);
      });
    }
  }

  it('of 262,144 runs come back whole', () => {
    const entries = Array.from({ length: 262_144 }, (_, i) =>
      present(0x7f00_0000_0000n + BigInt(i) * 8192n, 1),
    );
    const bytes = encodePagemap(1, entries);
    assert.deepEqual([...decodePagemap(bytes, 'p').entries], entries);
  });

  it('of random bytes only ever give an ImageError', () => {
    const prefix = encodePagemap(1, []);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), fc.boolean(), (bytes, framed) => {
        const parts = framed ? [prefix, Uint8Array.of(bytes.length, 0, 0, 0), bytes] : [prefix, bytes];
        try {
          const pagemap = decodePagemap(Buffer.concat(parts), 'p');
          checkPagemap(pagemap);
        } catch (error) {
          assert.ok(error instanceof ImageError, String(error));
        }
      }),
      { numRuns: 5000 },
    );
  });
});

describe('pages through a chain of images', () => {
  const inventory = Buffer.alloc(10);
  inventory.writeUInt32LE(MAGIC.INVENTORY, 0);
  inventory.writeUInt32LE(2, 4);
  inventory.set([8, 2], 8);

  function make(root: string, name: string, entries: PagemapEntry[], below?: string): string {
    const directory = path.join(root, name);
    mkdirSync(directory, { mode: 0o700 });
    const pages = entries.reduce((sum, e) => sum + (e.flags & PE_PRESENT ? e.nrPages : 0), 0);
    writeFileSync(path.join(directory, 'inventory.img'), inventory, { mode: 0o600 });
    writeFileSync(path.join(directory, 'pagemap-1.img'), encodePagemap(1, entries), { mode: 0o600 });
    writeFileSync(path.join(directory, 'pages-1.img'), Buffer.alloc(pages * PAGE_BYTES), { mode: 0o600 });
    if (below !== undefined) symlinkSync(`../${below}`, path.join(directory, 'parent'));
    return directory;
  }

  it('are found where they are', () => {
    using directory = new TemporaryDirectory();
    make(directory.path, 'a', [present(0n, 10)]);
    make(directory.path, 'b', [present(0x1000n, 1), parent(0x2000n, 6)], 'a');
    make(directory.path, 'c', [parent(0x1000n, 3), present(0x8000n, 1)], 'b');
    using reader = ImageReader.open(path.join(directory.path, 'c'));
    const runs = [...iteratePages(reader, 1)].map(({ vaddr, nrPages, source }) => {
      return [Number(vaddr), nrPages, path.basename(source?.reader.directory ?? ''), source?.offset];
    });
    assert.deepEqual(runs, [
      [0x1000, 1, 'b', 0],
      [0x2000, 2, 'a', 0x2000],
      [0x8000, 1, 'c', 0],
    ]);
  });

  it('are missed where no parent has them', () => {
    using directory = new TemporaryDirectory();
    make(directory.path, 'a', [present(0n, 2)]);
    make(directory.path, 'b', [parent(0n, 3)], 'a');
    using reader = ImageReader.open(path.join(directory.path, 'b'));
    assert.throws(() => [...iteratePages(reader, 1)], /0x2000 is in no parent/);
  });

  it('end at a parent that is its own', () => {
    using directory = new TemporaryDirectory();
    make(directory.path, 'a', [parent(0n, 2)], 'a');
    using reader = ImageReader.open(path.join(directory.path, 'a'));
    assert.throws(() => [...iteratePages(reader, 1)], /its own parent/);
  });
});
