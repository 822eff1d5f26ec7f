import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { createMessage, decodeAny, decodeImage, encodeImage, type RecordInput } from './codec.js';
import { ImageError } from './errors.js';
import { fileOf, KINDS, type KindName, kindOfFile } from './kinds.js';
import { IMG_COMMON_MAGIC, MAGIC } from './magic.js';
import { CRIU_IMAGES, criuImage } from './testing.js';

/** Every file of every CRIU image that has records. */
const samples = CRIU_IMAGES.flatMap((name) =>
  readdirSync(criuImage(name)).flatMap((file) => {
    const known = kindOfFile(file);
    if (known === undefined) return [];
    return [{ name: `${name}/${file}`, ...known, bytes: readFileSync(path.join(criuImage(name), file)) }];
  }),
);

function words(...values: number[]): Uint8Array {
  return new Uint8Array(Uint32Array.from(values).buffer);
}

function file(kind: KindName, ...parts: Uint8Array[]): Uint8Array {
  return Buffer.concat([words(IMG_COMMON_MAGIC, KINDS[kind].magic), ...parts]);
}

describe('images made by CRIU 4.2', () => {
  for (const { name, kind, id, bytes } of samples) {
    it(`${name} comes back byte for byte`, () => {
      const records = decodeImage(kind, bytes, name);
      assert.ok(records.length > 0 || bytes.length <= 12);
      assert.deepEqual(Buffer.from(encodeImage(kind, records as RecordInput<typeof kind>[])), bytes);
      assert.equal(fileOf(kind, id), path.basename(name));
    });
  }

  it('have no field that the schemas lack', () => {
    const unknown = (value: unknown): boolean => {
      if (Array.isArray(value)) return value.some(unknown);
      if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return false;
      return Object.hasOwn(value, '$unknown') || Object.values(value).some(unknown);
    };
    for (const { name, kind, bytes } of samples) assert.ok(!unknown(decodeAny(kind, bytes, name)), name);
  });
});

describe('records with data after them', () => {
  const desc = { key: 1, uid: 0, gid: 0, cuid: 0, cgid: 0, mode: 0o600, id: 0 };
  const data = Uint8Array.of(1, 2, 3, 4, 5);

  it('pads messages of a queue to eight bytes', () => {
    const message = createMessage('ipcns-msg', { desc, qbytes: 16384, qnum: 1 });
    const nested = [{ $typeName: 'ipc_msg' as const, mtype: 5n, msize: 5 }];
    const bytes = encodeImage('ipcns-msg', [{ message, nested, raw: [data] }]);
    const [record] = decodeImage('ipcns-msg', bytes, 'q');
    assert.deepEqual(Buffer.from(record?.raw[0] ?? []), Buffer.from(data));
    assert.equal(record?.nested[0]?.mtype, 5n);
    assert.deepEqual([...bytes.subarray(-3)], [0, 0, 0]);
  });

  it('pads semaphores to eight bytes and shared memory to four', () => {
    const sem = createMessage('ipcns-sem', { desc, nsems: 3 });
    const sems = encodeImage('ipcns-sem', [{ message: sem, raw: [new Uint8Array(6)] }]);
    assert.equal(decodeImage('ipcns-sem', sems, 's')[0]?.raw[0]?.length, 6);
    const shm = createMessage('ipcns-shm', { desc, size: 5n });
    const bytes = encodeImage('ipcns-shm', [{ message: shm, raw: [data] }]);
    assert.equal(decodeImage('ipcns-shm', bytes, 's')[0]?.raw[0]?.length, 5);
  });

  it('keeps the chunks of a ghost file apart', () => {
    const message = createMessage('ghost-file', {
      uid: 0,
      gid: 0,
      mode: 0o100644,
      chunks: true,
      size: 4101n,
    });
    const nested = [{ $typeName: 'ghost_chunk_entry' as const, len: 5n, off: 4096n }];
    const bytes = encodeImage('ghost-file', [{ message, nested, raw: [data] }]);
    const [record] = decodeImage('ghost-file', bytes, 'g');
    assert.equal(record?.nested[0]?.off, 4096n);
    assert.equal(record?.raw[0]?.length, 5);
  });

  it('takes the rest of the file for a ghost file without chunks', () => {
    const message = createMessage('ghost-file', { uid: 0, gid: 0, mode: 0o100644 });
    const bytes = encodeImage('ghost-file', [{ message, raw: [data] }]);
    assert.equal(decodeImage('ghost-file', bytes, 'g')[0]?.raw[0]?.length, 5);
  });

  it('has both queues of a TCP stream', () => {
    const zero = { inqSeq: 0, outqSeq: 0, optMask: 0, sndWscale: 0, mssClamp: 536 };
    const message = createMessage('tcp-stream', { ...zero, inqLen: 2, outqLen: 5 });
    const bytes = encodeImage('tcp-stream', [{ message, raw: [data.subarray(0, 2), data] }]);
    assert.deepEqual(
      decodeImage('tcp-stream', bytes, 't')[0]?.raw.map((part) => part.length),
      [2, 5],
    );
  });

  it('refuses data that is not as long as the record says', () => {
    const message = createMessage('pipes-data', { pipeId: 1, bytes: 4 });
    assert.throws(() => encodeImage('pipes-data', [{ message, raw: [data] }]), ImageError);
    assert.throws(() => encodeImage('pipes-data', [{ message }]), ImageError);
    assert.throws(() => encodeImage('pstree', [{ message: createMessage('pstree', { pid: 1 }) }]), /ppid/);
  });
});

describe('names that are not UTF-8', () => {
  it('come back byte for byte', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 15 }), (name) => {
        // The inventory: img_version, then the one string it has.
        const body = Buffer.concat([Uint8Array.of(0x08, 2, 0x6a, name.length), name]);
        const bytes = Buffer.concat([words(MAGIC.INVENTORY, body.length), body]);
        assert.deepEqual(encodeImage('inventory', decodeImage('inventory', bytes, 'n')), bytes);
      }),
    );
  });
});

const invalid: { name: string; kind: KindName; bytes: Uint8Array; offset: number; message: RegExp }[] = [
  { name: 'nothing', kind: 'pstree', bytes: new Uint8Array(), offset: 0, message: /cut short/ },
  { name: 'no image', kind: 'pstree', bytes: words(1, 2), offset: 4, message: /not an image/ },
  {
    name: 'another kind',
    kind: 'pstree',
    bytes: words(IMG_COMMON_MAGIC, MAGIC.CORE),
    offset: 8,
    message: /another kind/,
  },
  {
    name: 'half a length',
    kind: 'pstree',
    bytes: file('pstree', Uint8Array.of(1)),
    offset: 8,
    message: /cut short/,
  },
  {
    name: 'a huge length',
    kind: 'pstree',
    bytes: file('pstree', words(0xffffffff)),
    offset: 8,
    message: /record of/,
  },
  {
    name: 'a record cut short',
    kind: 'pstree',
    bytes: file('pstree', words(8)),
    offset: 12,
    message: /cut short/,
  },
  {
    name: 'a record without a required field',
    kind: 'pstree',
    bytes: file('pstree', words(2), Uint8Array.of(8, 1)),
    offset: 8,
    message: /lacks ppid/,
  },
  {
    name: 'a record that is no message',
    kind: 'pstree',
    bytes: file('pstree', words(2), Uint8Array.of(8, 0x80)),
    offset: 8,
    message: /not a pstree_entry/,
  },
  {
    name: 'data cut short',
    kind: 'pipes-data',
    bytes: file('pipes-data', words(4), Uint8Array.of(8, 1, 16, 9, 7)),
    offset: 16,
    message: /9 bytes is cut short: 1 are left/,
  },
];

describe('invalid images', () => {
  for (const { name, kind, bytes, offset, message } of invalid) {
    it(`${name} is refused`, () => {
      assert.throws(
        () => decodeImage(kind, bytes, 'some.img'),
        (error: unknown) => {
          assert.ok(error instanceof ImageError);
          assert.equal(error.file, 'some.img');
          assert.equal(error.offset, offset);
          assert.match(error.message, message);
          return true;
        },
      );
    });
  }

  const kinds = Object.keys(KINDS) as KindName[];
  const only = (run: () => unknown) => {
    try {
      run();
    } catch (error) {
      assert.ok(error instanceof ImageError, String(error));
    }
  };

  it('of random bytes only ever give an ImageError', () => {
    fc.assert(
      fc.property(fc.constantFrom(...kinds), fc.uint8Array({ maxLength: 200 }), (kind, bytes) => {
        only(() => decodeImage(kind, bytes, 'x'));
        only(() => decodeImage(kind, file(kind, bytes), 'x'));
        only(() => decodeImage(kind, file(kind, words(bytes.length), bytes), 'x'));
      }),
      { numRuns: 3000 },
    );
  });

  it('made of mutated valid ones only ever give an ImageError', () => {
    const mutation = fc.record({ at: fc.nat(), value: fc.nat(255) });
    fc.assert(
      fc.property(
        fc.constantFrom(...samples),
        fc.array(mutation, { minLength: 1, maxLength: 6 }),
        fc.option(fc.nat()),
        ({ kind, bytes }, mutations, cut) => {
          const changed = Uint8Array.from(bytes);
          for (const { at, value } of mutations) changed[at % changed.length] = value;
          const end = cut === null ? changed.length : cut % (changed.length + 1);
          only(() => decodeImage(kind, changed.subarray(0, end), 'x'));
        },
      ),
      { numRuns: 3000 },
    );
  });
});
