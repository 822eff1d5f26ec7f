import assert from 'node:assert/strict';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { dump } from '../../engine/dump.js';
import { restore } from '../../engine/restore.js';
import {
  encodeImage,
  encodePagemap,
  ImageReader,
  PAGE_BYTES,
  type PagemapEntry,
  PE_PARENT,
  PE_PRESENT,
} from '../../image/index.js';
import { readMaps } from '../../kernel/procfs/maps.js';
import { checkpointOptions, gone, inPidNamespace, restoreRequest, started } from './testing/trial.js';
import { VMA } from './vma.js';

/** Save a program, change its image, restore it. */
async function throughChangedImage(
  build: string,
  check: string,
  change: (directory: string, pid: number) => string,
  look: (pid: number) => void = () => {},
): Promise<void> {
  using subject = await started(build, check);
  const root = mkdtempSync(join(tmpdir(), 'stasis-images-'));
  try {
    const directory = join(root, 'image');
    dump(checkpointOptions(subject.pid, directory));
    await gone(subject.pid);
    restore(restoreRequest(change(directory, subject.pid)));
    look(subject.pid);
    subject.signal(10);
    await subject.expect(/checked/);
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

/** An increment: every other run of the process is in the parent alone, and what is in both has changed in between. */
function incremental(directory: string, pid: number): string {
  const below = `${directory}-before`;
  renameSync(directory, below);
  mkdirSync(directory, { mode: 0o700 });
  symlinkSync('../image-before', join(directory, 'parent'));
  const name = `pagemap-${pid}.img`;
  for (const file of readdirSync(below))
    if (file !== name) writeFileSync(join(directory, file), readFileSync(join(below, file)), { mode: 0o600 });
  using reader = ImageReader.open(below);
  const pagemap = reader.pagemap(pid);
  assert.ok(pagemap);
  const old = readFileSync(join(below, `pages-${pagemap.pagesId}.img`));
  const entries: PagemapEntry[] = [];
  const pages: Buffer[] = [];
  let at = 0;
  for (const entry of pagemap.entries) {
    const bytes = old.subarray(at, at + entry.nrPages * PAGE_BYTES);
    at += bytes.length;
    const first = Math.floor(entry.nrPages / 2);
    if (first > 0) entries.push({ vaddr: entry.vaddr, nrPages: first, flags: PE_PARENT });
    const vaddr = entry.vaddr + BigInt(first * PAGE_BYTES);
    entries.push({ vaddr, nrPages: entry.nrPages - first, flags: PE_PRESENT });
    pages.push(Buffer.from(bytes.subarray(first * PAGE_BYTES)));
    bytes.fill(0xee, first * PAGE_BYTES);
  }
  writeFileSync(join(below, `pages-${pagemap.pagesId}.img`), old);
  writeFileSync(join(directory, name), encodePagemap(pagemap.pagesId, entries), { mode: 0o600 });
  writeFileSync(join(directory, `pages-${pagemap.pagesId}.img`), Buffer.concat(pages), { mode: 0o600 });
  return directory;
}

/** As if the image came from a kernel with less data before its vDSO. */
function otherVdso(directory: string, pid: number): string {
  using reader = ImageReader.open(directory);
  const mm = reader.readOne('mm', pid);
  for (const vma of mm.vmas) if ((vma.status & VMA.VVAR) !== 0) vma.start += BigInt(PAGE_BYTES);
  writeFileSync(join(directory, `mm-${pid}.img`), encodeImage('mm', [{ message: mm }]));
  return directory;
}

if (inPidNamespace(import.meta.url)) {
  test('an increment, with pages in its parent', async () => {
    await throughChangedImage(
      `a = new(100); fill(a, 100, b'page'); b = bytearray(os.urandom(100000)); c = bytes(b)`,
      `filled(a, 100, b'page'); assert b == c`,
      incremental,
    );
  });

  test('an image of a kernel with another vDSO', async () => {
    let before = 0n;
    await throughChangedImage(
      `import time; t = time.clock_gettime(time.CLOCK_MONOTONIC); time.time()`,
      `
for i in range(1000): assert t <= time.clock_gettime(time.CLOCK_MONOTONIC) < t + 100
assert abs(time.time() - os.stat(sys.argv[0]).st_mtime) < 1000; time.gmtime()`,
      (directory, pid) => {
        using reader = ImageReader.open(directory);
        before = reader.readOne('mm', pid).vmas.find(({ status }) => (status & VMA.VDSO) !== 0)?.start ?? 0n;
        return otherVdso(directory, pid);
      },
      (pid) => {
        const maps = readMaps(pid);
        const now = maps.find(({ path }) => path === '[vdso]')?.start;
        assert.notEqual(now, before);
        assert.equal(
          maps.find(({ start }) => start === before)?.perms,
          'r-xp',
          'jumps where the old one was',
        );
      },
    );
  });
}
