import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deflateSync } from 'node:zlib';
import * as U from '../../abi/io-uring.js';
import { decodeRings, encodeRings, type SavedRing } from './io-uring-codec.js';
import { lengthsOf } from './io-uring-layout.js';

function entry(opcode: number, flags = 0, personality = 0): Uint8Array {
  const sqe = new Uint8Array(U.SQE.size);
  sqe[U.SQE.opcode] = opcode;
  sqe[U.SQE.flags] = flags;
  sqe[U.SQE.personality] = personality;
  return sqe;
}

const RING: SavedRing = {
  id: 7,
  fileFlags: 0o2,
  flags: 1 << 12,
  sqEntries: 4,
  cqEntries: 8,
  offsets: [0, 4, 16, 24, 36, 32, 192, 8, 12, 20, 28, 44, 64, 40],
  sqHead: 1003,
  cqTail: 0xffff,
  clock: 1,
  files: [0, 5],
  fileRange: { start: 0, end: 2 },
  eventfd: { file: 9, isAsync: true },
  submitter: 12,
  buffers: [
    { address: 0x7fff_0000_0001n, length: 4096 },
    { address: 0n, length: 0 },
  ],
  buffersOf: 12,
  numbers: [{ pid: 12, number: 3 }],
  issuer: { tid: 13, fd: 5 },
  requests: [
    { sqe: entry(U.IORING_OP_RECV, U.IOSQE_IO_LINK) },
    { sqe: entry(U.IORING_OP_LINK_TIMEOUT), time: 1_500_000_000n },
    { sqe: entry(U.IORING_OP_POLL_ADD, U.IOSQE_FIXED_FILE) },
  ],
  rings: new Uint8Array(208).fill(1),
  sqes: new Uint8Array(256).fill(2),
};

function plain(): Record<string, unknown> {
  const [ring] = JSON.parse(Buffer.from(encodeRings([RING])).toString());
  return ring;
}

test('a ring as it was', () => {
  const bytes = encodeRings([RING]);
  const ring = decodeRings(JSON.parse(Buffer.from(bytes).toString())).get(7);
  assert.deepEqual(ring, {
    ...RING,
    rings: Buffer.from(RING.rings),
    sqes: Buffer.from(RING.sqes),
  });
});

function operations(...all: readonly (readonly [opcode: number, flags?: number, personality?: number])[]) {
  return { requests: all.map((each) => ({ sqe: Buffer.from(entry(...each)).toString('hex') })) };
}

function timed(time: unknown) {
  return { requests: [{ sqe: Buffer.from(entry(U.IORING_OP_TIMEOUT)).toString('hex'), time }] };
}

test('a ring from before there were operations in images', () => {
  const { requests, issuer, ...old } = plain();
  assert.ok(requests !== undefined && issuer !== undefined);
  assert.deepEqual(decodeRings([old]).get(7)?.requests, []);
});

for (const [name, change, message] of [
  ['no list', undefined, /is no list/],
  ['entries that are no power of two', { sqEntries: 3 }, /a ring of 3 entries/],
  ['too many entries', { cqEntries: 1 << 20 }, /number of completions is 1048576/],
  ['a head that is no counter', { sqHead: -1 }, /whose head is -1/],
  ['offsets far away', { offsets: Array.from({ length: 14 }, () => 1 << 30) }, /without offsets/],
  ['a word far from the beginning', { offsets: RING.offsets.with(8, 4096) }, /without offsets/],
  ['more operations than are gone through', { cqTail: 2 ** 25 }, /whose tail is 33554432/],
  ['too few offsets', { offsets: [1] }, /without offsets/],
  ['other contents', { rings: Buffer.from('x').toString('base64') }, /unexpected end of file/],
  ['too little memory', { sqes: plain().rings }, /208 bytes instead of 256/],
  ['buffers that are none', { buffers: [['zz', 1]] }, /a buffer that is none/],
  ['a buffer of half a byte', { buffers: [['1000', 1.5]] }, /whose length of a buffer is 1.5/],
  ['a buffer of less than nothing', { buffers: [['1000', -1]] }, /whose length of a buffer is -1/],
  ['numbers that are none', { numbers: [3] }, /whose process is undefined/],
  ['operations that are no list', { requests: 5 }, /operations are no list/],
  ['too many operations', { requests: Array.from({ length: 1 << 16 }, () => 0) }, /or too many/],
  ['an operation that is none', { requests: [{ sqe: 'zz' }] }, /an operation that is none/],
  ['an operation that is not submitted again', operations([U.IORING_OP_NOP]), /an operation 0/],
  ['flags of a chain', operations([U.IORING_OP_RECV, 2]), /an operation of flags 2/],
  ['a personality', operations([U.IORING_OP_RECV, 0, 1]), /of a personality/],
  ['a link to nothing', operations([U.IORING_OP_RECV, 4]), /a linked operation at the end/],
  [
    'a link to no timeout',
    operations([U.IORING_OP_RECV, 4], [U.IORING_OP_RECV]),
    /not followed by its timeout/,
  ],
  ['a timeout without time', operations([U.IORING_OP_TIMEOUT]), /a timeout without time/],
  [
    'a timeout of nothing',
    operations([U.IORING_OP_LINK_TIMEOUT]),
    /not followed by its timeout|without time/,
  ],
  ['a time that is none', timed('1e9'), /a timeout of "1e9"/],
  ['a time beyond all', timed('9'.repeat(19)), /a timeout of "9{19}"/],
  ['operations of nobody', { issuer: undefined }, /operations of thread undefined/],
  ['operations of no descriptor', { issuer: { tid: 1, fd: -1 } }, /operations of descriptor -1/],
  ['more operations than were submitted', { sqHead: 2 }, /more operations on their way than were submitted/],
] as const)
  test(`invalid: ${name}`, () => {
    const content = change === undefined ? {} : [{ ...plain(), ...change }];
    assert.throws(() => decodeRings(content), message);
  });

/** Memory of a ring with as many entries as there can be, which takes no room in an image. */
function largest(): Record<string, unknown> {
  const shape = { flags: 0, sqEntries: 1 << 15, cqEntries: 1 << 16 };
  const { rings, sqes } = lengthsOf(shape, RING.offsets);
  const pack = (length: number) => deflateSync(new Uint8Array(length)).toString('base64');
  return { ...shape, rings: pack(rings), sqes: pack(sqes) };
}

for (const [name, change, count, message] of [
  ['memory', largest(), 100, /more than 268435456 bytes/],
  ['operations', { sqHead: 2 ** 24, cqTail: 2 ** 24 }, 5, /more than 134217728 operations/],
  ['files', { files: Array.from({ length: 2 ** 19 }, () => 0) }, 5, /more than 2097152 registered/],
] as const)
  test(`invalid: too much of ${name} in all rings together`, () => {
    const one = { ...plain(), ...change };
    assert.equal(decodeRings([one]).size, 1);
    assert.throws(() => decodeRings(Array.from({ length: count }, () => one)), message);
  });
