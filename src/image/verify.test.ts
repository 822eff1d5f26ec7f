import assert from 'node:assert/strict';
import { readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { readChecksums, verifyChecksums, writeChecksums } from './checksums.js';
import { encodeImage } from './codec.js';
import { ImageError } from './errors.js';
import { describe as describeImage } from './inspect.js';
import { ImageReader } from './reader.js';
import { TemporaryDirectory, WHOLE_IMAGES } from './testing.js';
import { verifyImage } from './verify.js';

function problemsOf(directory: string): string[] {
  using reader = ImageReader.open(directory);
  return verifyImage(reader).map(({ file, message }) => `${path.basename(file)}: ${message}`);
}

describe('verifying an image', () => {
  for (const name of WHOLE_IMAGES) {
    it(`finds nothing wrong with CRIU's ${name}`, () => {
      using temporary = new TemporaryDirectory();
      assert.deepEqual(problemsOf(temporary.copy(name)), []);
    });
  }

  it('finds the missing contents of two processes, and nothing else, in rich', () => {
    using temporary = new TemporaryDirectory();
    const problems = problemsOf(temporary.copy('rich'));
    assert.equal(problems.length, 2);
    for (const problem of problems)
      assert.match(problem, /pagemap-\d+.img: accounts for \d+ bytes of pages-\d.img/);
  });

  it('finds the missing contents of one process, and nothing else, in namespaces', () => {
    using temporary = new TemporaryDirectory();
    const problems = problemsOf(temporary.copy('namespaces'));
    assert.equal(problems.length, 1);
    assert.match(problems[0] ?? '', /accounts for \d+ bytes of pages-1.img/);
  });

  const spoilt: { name: string; spoil: (directory: string) => void; message: RegExp }[] = [
    {
      name: 'a missing core',
      spoil: (d) => rmSync(path.join(d, 'core-23.img')),
      message: /core-23.img: is missing/,
    },
    {
      name: 'a missing mm',
      spoil: (d) => rmSync(path.join(d, 'mm-23.img')),
      message: /mm-23.img: is missing/,
    },
    {
      name: 'a missing fs',
      spoil: (d) => rmSync(path.join(d, 'fs-23.img')),
      message: /fs-23.img: is missing/,
    },
    {
      name: 'a missing tree',
      spoil: (d) => rmSync(path.join(d, 'pstree.img')),
      message: /pstree.img: is missing/,
    },
    {
      name: 'a missing pagemap',
      spoil: (d) => rmSync(path.join(d, 'pagemap-23.img')),
      message: /pagemap-23.img: is missing/,
    },
    {
      name: 'short pages',
      spoil: (d) => truncateSync(path.join(d, 'pages-1.img'), 4096),
      message: /accounts for/,
    },
    {
      name: 'no files',
      spoil: (d) => writeFileSync(path.join(d, 'files.img'), encodeImage('files', [])),
      message: /fdinfo-2.img: descriptor 0 is file 2, which files.img lacks/,
    },
    {
      name: 'a file cut short',
      spoil: (d) => truncateSync(path.join(d, 'core-23.img'), 100),
      message: /cut short/,
    },
  ];
  for (const { name, spoil, message } of spoilt) {
    it(`finds ${name}`, () => {
      using temporary = new TemporaryDirectory();
      const directory = temporary.copy('tiny');
      spoil(directory);
      assert.match(problemsOf(directory).join('\n'), message);
    });
  }

  it('never throws, whatever a file holds', () => {
    using temporary = new TemporaryDirectory();
    const directory = temporary.copy('tiny');
    const names = [
      'core-23',
      'fdinfo-2',
      'files',
      'fs-23',
      'ids-23',
      'mm-23',
      'pagemap-23',
      'pstree',
      'seccomp',
    ];
    const property = fc.property(fc.constantFrom(...names), fc.nat(), fc.nat(255), (name, at, value) => {
      const file = path.join(directory, `${name}.img`);
      const bytes = readFileSync(file);
      const changed = Uint8Array.from(bytes);
      changed[at % changed.length] = value;
      writeFileSync(file, changed);
      problemsOf(directory);
      writeFileSync(file, bytes);
    });
    fc.assert(property, { numRuns: 300 });
  });
});

describe('describing an image', () => {
  it('counts what is in it', () => {
    using temporary = new TemporaryDirectory();
    const description = describeImage(temporary.copy('rich'));
    assert.equal(description.tasks, 3);
    assert.equal(description.counts.core, 4);
    assert.equal(description.counts['pagemap-shmem'], 2);
    assert.equal(description.pages_bytes, 2 * 4096);
    assert.equal(description.files.find((file) => file.name === 'pages-1.img')?.kind, 'raw');
  });
});

describe('checksums', () => {
  it('find every byte that changed', () => {
    using temporary = new TemporaryDirectory();
    const directory = temporary.copy('tiny');
    using reader = ImageReader.open(directory);
    assert.equal(readChecksums(reader), undefined);
    writeChecksums(reader);
    const sums = readChecksums(reader);
    assert.ok(sums !== undefined);
    assert.deepEqual(verifyChecksums(reader, sums), []);
    assert.deepEqual(problemsOf(directory), []);
    const pages = path.join(directory, 'pages-1.img');
    const bytes = readFileSync(pages);
    bytes[5000] = (bytes[5000] ?? 0) ^ 1;
    writeFileSync(pages, bytes);
    rmSync(path.join(directory, 'seccomp.img'));
    assert.deepEqual(verifyChecksums(reader, sums), [
      { file: 'pages-1.img', offset: 0, message: 'its contents have changed' },
      { file: 'seccomp.img', message: 'is missing' },
    ]);
  });

  it('that make no sense are an ImageError', () => {
    using temporary = new TemporaryDirectory();
    const directory = temporary.copy('tiny');
    using reader = ImageReader.open(directory);
    for (const text of ['', '{}', '[]', '{"files":{"x":{}}}', '{"version":2,"files":{}}']) {
      writeFileSync(path.join(directory, 'stasis-checksums.json'), text, { mode: 0o600 });
      assert.throws(() => readChecksums(reader), ImageError);
    }
  });
});
