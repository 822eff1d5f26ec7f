import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  readdirSync,
  readlinkSync,
  renameSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import { createMessage } from './codec.js';
import { ImageError } from './errors.js';
import { ImageReader } from './reader.js';
import { TemporaryDirectory } from './testing.js';
import { ImageWriter } from './writer.js';

const inventory = createMessage('inventory', { imgVersion: 2, fdinfoPerId: true });
const task = createMessage('pstree', { pid: 1, ppid: 0, pgid: 1, sid: 1, threads: [1] });

function modeOf(file: string): number {
  return statSync(file).mode & 0o777;
}

function writeSmall(directory: string, options = {}): void {
  using writer = ImageWriter.create(directory, options);
  writer.write('pstree', null, [task]);
  writer.commit(inventory);
}

describe('writing an image', () => {
  it('gives one that can be read, for its owner only', () => {
    using temporary = new TemporaryDirectory();
    const directory = path.join(temporary.path, 'deep', 'image');
    const umask = process.umask(0);
    try {
      writeSmall(directory);
    } finally {
      process.umask(umask);
    }
    assert.equal(modeOf(directory), 0o700);
    assert.deepEqual(readdirSync(directory), ['inventory.img', 'pstree.img']);
    for (const name of readdirSync(directory)) assert.equal(modeOf(path.join(directory, name)), 0o600);
    using reader = ImageReader.open(directory);
    assert.equal(reader.inventory.fdinfoPerId, true);
    assert.deepEqual(reader.read('pstree'), [task]);
    assert.equal(reader.readOptional('mm', 1), undefined);
    assert.throws(() => reader.read('mm', 1), /mm-1.img: is missing/);
  });

  it('leaves nothing when it is not committed', () => {
    using temporary = new TemporaryDirectory();
    {
      using writer = ImageWriter.create(temporary.path);
      writer.write('pstree', null, [task]);
      writer.openRaw('pages-1.img').write(Buffer.alloc(4096));
      writer.linkParent(path.join(temporary.path, '../other'));
      assert.equal(readlinkSync(path.join(temporary.path, 'parent')), '../other');
      assert.equal(writer.bytes.get('pages-1.img'), 4096);
    }
    assert.deepEqual(readdirSync(temporary.path), []);
  });

  it('leaves no inventory when the commit fails', () => {
    using temporary = new TemporaryDirectory();
    using writer = ImageWriter.create(temporary.path);
    writer.write('pstree', null, [task]);
    const wrong = createMessage('inventory', {});
    assert.throws(() => writer.commit(wrong), ImageError);
    writer.abandon();
    assert.deepEqual(readdirSync(temporary.path), []);
    assert.throws(() => writer.write('pstree', null, [task]), /abandoned already/);
  });

  it('refuses a directory with an image, or replaces all of it', () => {
    using temporary = new TemporaryDirectory();
    const directory = temporary.copy('ipc');
    writeFileSync(path.join(directory, 'descriptors.json'), '[]');
    symlinkSync('../gone', path.join(directory, 'parent'));
    assert.throws(() => ImageWriter.create(directory), /already holds an image/);
    assert.ok(existsSync(path.join(directory, 'inventory.img')));
    writeSmall(directory, { overwrite: true });
    assert.deepEqual(readdirSync(directory), ['descriptors.json', 'inventory.img', 'pstree.img']);
  });

  it('refuses to write a file twice, or outside', () => {
    using temporary = new TemporaryDirectory();
    using writer = ImageWriter.create(temporary.path);
    writer.write('pstree', null, [task]);
    assert.throws(() => writer.write('pstree', null, [task]), /cannot be created/);
    for (const name of ['../x', '..', '', 'a/b', '/etc/x', 'a\0b']) {
      assert.throws(() => writer.openRaw(name), /no name of an image file/);
    }
  });

  it('makes a link to its parent that is relative', () => {
    using temporary = new TemporaryDirectory();
    const first = path.join(temporary.path, 'first');
    writeSmall(first);
    const second = path.join(temporary.path, 'second');
    {
      using writer = ImageWriter.create(second);
      writer.linkParent(first);
      writer.commit(inventory);
    }
    assert.equal(readlinkSync(path.join(second, 'parent')), '../first');
    using reader = ImageReader.open(second);
    assert.equal(reader.parent()?.directory, first);
  });
});

describe('reading an image', () => {
  const refused: { name: string; spoil: (directory: string) => void; message: RegExp }[] = [
    {
      name: 'without an inventory',
      spoil: (d) => renameSync(path.join(d, 'inventory.img'), path.join(d, 'x.img')),
      message: /there is no image/,
    },
    { name: 'others can write to', spoil: (d) => chmodSync(d, 0o770), message: /written by others/ },
    {
      name: 'with a file others can write to',
      spoil: (d) => chmodSync(path.join(d, 'inventory.img'), 0o602),
      message: /written by others \(mode 602\)/,
    },
    {
      name: 'with a link in place of a file',
      spoil: (d) => {
        renameSync(path.join(d, 'inventory.img'), path.join(d, 'x.img'));
        symlinkSync('x.img', path.join(d, 'inventory.img'));
      },
      message: /cannot be opened/,
    },
    {
      name: 'with an empty inventory',
      spoil: (d) => truncateSync(path.join(d, 'inventory.img'), 4),
      message: /no single entry/,
    },
  ];
  for (const { name, spoil, message } of refused) {
    it(`refuses one ${name}`, () => {
      using temporary = new TemporaryDirectory();
      const directory = temporary.copy('tiny');
      spoil(directory);
      assert.throws(
        () => ImageReader.open(directory),
        (error: unknown) => error instanceof ImageError && message.test(error.message),
      );
    });
  }

  it('trusts on request', () => {
    using temporary = new TemporaryDirectory();
    const directory = temporary.copy('tiny');
    chmodSync(directory, 0o777);
    using reader = ImageReader.open(directory, { trust: true });
    assert.equal(reader.read('pstree').length, 1);
  });

  it('reads no file longer than the limit', () => {
    using temporary = new TemporaryDirectory();
    const directory = temporary.copy('tiny');
    truncateSync(path.join(directory, 'pstree.img'), 2 ** 40);
    using reader = ImageReader.open(directory);
    assert.throws(() => reader.read('pstree'), /more than the/);
  });
});
