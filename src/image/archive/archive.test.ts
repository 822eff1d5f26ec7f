import assert from 'node:assert/strict';
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { createMessage } from '../codec.js';
import { ImageError } from '../errors.js';
import { encodePagemap } from '../pagemap.js';
import { iteratePages } from '../pages.js';
import { ImageReader } from '../reader.js';
import { CRIU_IMAGES, TemporaryDirectory } from '../testing.js';
import { verifyImage } from '../verify.js';
import { ImageWriter } from '../writer.js';
import { ArchiveDecoder } from './decoder.js';
import { ArchiveEncoder } from './encoder.js';
import { DATA_BYTES_MAX, FRAME_HEADER_BYTES, HEADER_BYTES } from './format.js';
import { packImage, unpackImage } from './pack.js';
import { ArchiveStore } from './store.js';
import { ArchiveTarget } from './target.js';

const OPTIONS = { trust: true, overwrite: false, durable: false };
const inventory = createMessage('inventory', { imgVersion: 2 });

/** A small stream, whole. */
function stream(
  files: readonly (readonly [name: string, bytes: Uint8Array])[] = [['pstree.img', Buffer.from('abc')]],
): Buffer {
  const parts: Buffer[] = [];
  const encoder = new ArchiveEncoder((bytes) => parts.push(Buffer.from(bytes)));
  for (const [name, bytes] of files) {
    const file = encoder.file(name);
    file.write(bytes);
    file.close();
  }
  parts.push(Buffer.from(encoder.finish().end));
  return Buffer.concat(parts);
}

function decode(bytes: Uint8Array, cut = bytes.length): ArchiveDecoder {
  const decoder = new ArchiveDecoder('the stream');
  for (let at = 0; at < bytes.length; at += cut) decoder.push(bytes.subarray(at, at + cut));
  decoder.end();
  return decoder;
}

describe('archives', () => {
  for (const name of CRIU_IMAGES)
    it(`pack and unpack CRIU's ${name} byte for byte`, () => {
      using temporary = new TemporaryDirectory();
      const directory = temporary.copy(name);
      const file = path.join(temporary.path, 'image.stasis');
      const back = path.join(temporary.path, 'back');
      const packed = packImage(directory, file, OPTIONS);
      assert.deepEqual(unpackImage(file, back, OPTIONS), packed);
      assert.deepEqual(readdirSync(back), readdirSync(directory));
      for (const each of readdirSync(directory))
        assert.ok(readFileSync(path.join(directory, each)).equals(readFileSync(path.join(back, each))), each);
      assert.equal(statSync(file).mode & 0o777, 0o600);
      using one = ImageReader.open(directory);
      using other = ImageReader.open(file);
      assert.deepEqual(other.list(), one.list());
      assert.deepEqual(other.inventory, one.inventory);
      assert.deepEqual(
        verifyImage(other).map(({ message }) => message),
        verifyImage(one).map(({ message }) => message),
      );
    });

  it('have pages in several places, in the order of the pagemap', () => {
    using temporary = new TemporaryDirectory();
    const file = path.join(temporary.path, 'image.stasis');
    const pages = 3 * (DATA_BYTES_MAX / 4096) + 5;
    {
      using writer = new ImageWriter(ArchiveTarget.create(file));
      const raw = writer.openRaw('pages-1.img');
      writer.writeBytes('pagemap-1.img', [
        encodePagemap(1, [
          { vaddr: 0x10000n, nrPages: 7, flags: 4 },
          { vaddr: 0x100000n, nrPages: pages - 7, flags: 4 },
        ]),
      ]);
      for (let page = 0; page < pages; page++) raw.write(Buffer.alloc(4096, page));
      raw.close();
      writer.commit(inventory, { durable: false });
      assert.equal(writer.bytes.get('pages-1.img'), pages * 4096);
    }
    using reader = ImageReader.open(file);
    const fd = reader.openPages(1);
    let page = 0;
    for (const { nrPages, source } of iteratePages(reader, 1)) {
      const bytes = Buffer.alloc(nrPages * 4096);
      readInto(fd, bytes, source?.offset ?? 0);
      for (let at = 0; at < bytes.length; at += 4096) assert.equal(bytes[at], page++ % 256);
    }
    closeSync(fd);
    assert.equal(page, pages);
  });

  it('leave no file when they are not committed, and refuse to replace one', () => {
    using temporary = new TemporaryDirectory();
    const file = path.join(temporary.path, 'image.stasis');
    {
      using writer = new ImageWriter(ArchiveTarget.create(file));
      writer.writeBytes('pstree.img', [Buffer.from('x')]);
    }
    assert.deepEqual(readdirSync(temporary.path), []);
    writeFileSync(file, 'mine');
    assert.throws(() => ArchiveTarget.create(file), /is there already/);
    {
      using writer = new ImageWriter(ArchiveTarget.create(file, { overwrite: true }));
      writer.commit(inventory, { durable: false });
    }
    assert.ok(existsSync(file));
    assert.equal(ImageReader.open(file).inventory.imgVersion, 2);
  });

  it('are compared with their checksums when they are read', () => {
    using temporary = new TemporaryDirectory();
    const file = path.join(temporary.path, 'image.stasis');
    packImage(temporary.copy('tiny'), file, OPTIONS);
    const bytes = readFileSync(file);
    using store = ArchiveStore.open(file);
    const [piece] = [...store.files].find(({ name }) => name === 'pages-1.img')?.pieces(0, 4096) ?? [];
    const fd = openSync(file, 'r+');
    writeSync(fd, Buffer.from([1 + (bytes[piece?.at ?? 0] ?? 0)]), 0, 1, piece?.at ?? 0);
    closeSync(fd);
    assert.throws(() => store.verify(), /pages-1.img.*contents have changed/);
  });
});

function readInto(fd: number, bytes: Buffer, position: number): void {
  const got = readFileSync(`/proc/self/fd/${fd}`).subarray(position, position + bytes.length);
  got.copy(bytes);
}

describe('streams', () => {
  it('come in pieces of any length', () => {
    const content = Buffer.from(Array.from({ length: 5000 }, (_, index) => index % 251));
    const bytes = stream([
      ['a.img', content],
      ['empty.img', Buffer.alloc(0)],
    ]);
    for (const cut of [1, 7, 63, 64, 65, 4096, bytes.length]) {
      const { contents, position } = decode(bytes, cut);
      assert.deepEqual([...contents.files.keys()], ['a.img', 'empty.img']);
      assert.equal(contents.files.get('a.img')?.size, content.length);
      assert.equal(position, bytes.length);
    }
  });

  it('may repeat their end, and say then that the source is gone, but nothing else', () => {
    const parts: Buffer[] = [];
    const encoder = new ArchiveEncoder((bytes) => parts.push(Buffer.from(bytes)));
    encoder.file('a.img').close();
    const { end, gone } = encoder.finish();
    const decoder = decode(Buffer.concat([...parts, end, end, gone, gone]));
    assert.ok(decoder.contents.isGone);
    assert.throws(() => decoder.push(end), /something follows behind the end/);
    const early = new ArchiveDecoder('the stream');
    early.push(Buffer.concat(parts));
    assert.throws(() => early.push(gone), ImageError);
  });

  const hostile: { name: string; spoil: (bytes: Buffer) => Uint8Array; message: RegExp }[] = [
    { name: 'another format', spoil: () => Buffer.alloc(100, 7), message: /no archive or stream/ },
    {
      name: 'another version',
      spoil: (bytes) => {
        bytes.writeUInt32LE(2, 8);
        return bytes;
      },
      message: /offset 8: has version 2 .* this is version 1/,
    },
    {
      name: 'a changed header',
      spoil: (bytes) => {
        bytes.writeUInt32LE(8, 12);
        return bytes;
      },
      message: /header is damaged/,
    },
    {
      name: 'a frame of a terabyte',
      spoil: (bytes) => {
        bytes.writeUInt32LE(0xffff_ffff, HEADER_BYTES + 16);
        return bytes;
      },
      message: /offset 64: is damaged: a frame of type 1 is not 4294967295 bytes long/,
    },
    {
      name: 'a frame left out',
      spoil: (bytes) => {
        const first = FRAME_HEADER_BYTES + 'pstree.img'.length;
        return Buffer.concat([bytes.subarray(0, HEADER_BYTES), bytes.subarray(HEADER_BYTES + first)]);
      },
      message: /frame 1 is where frame 0 should be/,
    },
    { name: 'an early end', spoil: (bytes) => bytes.subarray(0, -3), message: /breaks off/ },
    { name: 'no bytes at all', spoil: () => Buffer.alloc(0), message: /offset 0: breaks off/ },
    {
      name: 'frames of another stream',
      spoil: (bytes) => Buffer.concat([bytes.subarray(0, HEADER_BYTES), stream().subarray(HEADER_BYTES)]),
      message: /checksum/,
    },
  ];
  for (const { name, spoil, message } of hostile)
    it(`are refused with ${name}`, () => {
      assert.throws(
        () => decode(spoil(stream())),
        (error: unknown) => error instanceof ImageError && message.test(error.message),
      );
    });

  for (const name of ['../x', 'parent', 'a/b', '.x', '', 'x'.repeat(300), 'a\0b'])
    it(`are refused with a file called ${JSON.stringify(name.slice(0, 10))}`, () => {
      assert.throws(() => decode(stream([[name, Buffer.from('x')]])), /is no name of an image file/);
    });

  it('are refused when a file is there twice', () => {
    const twice = [
      ['a.img', Buffer.from('x')],
      ['a.img', Buffer.from('y')],
    ] as const;
    assert.throws(() => decode(stream(twice)), /is there twice/);
  });

  it('are refused as a whole, by an error of their own, whatever is changed, left out or put in', () => {
    const good = stream([
      ['pstree.img', Buffer.from('some bytes of a file')],
      ['pages-1.img', Buffer.alloc(8192, 3)],
    ]);
    const change = fc.record({
      at: fc.nat(good.length - 1),
      removed: fc.nat(100),
      added: fc.uint8Array({ maxLength: 100 }),
      cut: fc.integer({ min: 1, max: 500 }),
    });
    fc.assert(
      fc.property(change, ({ at, removed, added, cut }) => {
        const bytes = Buffer.concat([good.subarray(0, at), added, good.subarray(at + removed)]);
        if (bytes.equals(good)) return;
        assert.throws(() => decode(bytes, cut), ImageError);
      }),
      { numRuns: 500 },
    );
  });

  it('of any bytes behind a good header are refused', () => {
    const header = stream().subarray(0, HEADER_BYTES);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 3000 }), (bytes) => {
        assert.throws(() => decode(Buffer.concat([header, bytes])), ImageError);
      }),
    );
  });

  it('on a disk that are changed anywhere are refused when opened or read', () => {
    using temporary = new TemporaryDirectory();
    const file = path.join(temporary.path, 'image.stasis');
    const good = stream([['pstree.img', Buffer.from('some bytes of a file')]]);
    fc.assert(
      fc.property(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }), (at, by) => {
        const bytes = Buffer.from(good);
        bytes[at] = (bytes[at] ?? 0) ^ by;
        writeFileSync(file, bytes);
        assert.throws(() => {
          using store = ArchiveStore.open(file);
          store.verify();
        }, ImageError);
      }),
      { numRuns: 300 },
    );
  });
});
