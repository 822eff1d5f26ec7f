import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeMessages, encodeMessages } from './images.js';

const MAGIC = 0x4736_1222;
const MESSAGES = [
  { type: 20, flags: 2, body: Uint8Array.of(2, 8, 128, 254) },
  { type: 20, flags: 2, body: Uint8Array.of(10, 128, 128, 254, 1) },
];

for (const magic of [MAGIC, undefined])
  test(`messages ${magic === undefined ? 'without' : 'with'} a magic number come back`, () => {
    const bytes = encodeMessages(magic, MESSAGES);
    assert.equal(bytes.length % 4, 0);
    assert.deepEqual(decodeMessages(magic, bytes), MESSAGES);
    assert.deepEqual(decodeMessages(magic, new Uint8Array()), []);
  });

const whole = encodeMessages(MAGIC, MESSAGES);
const INVALID: readonly (readonly [name: string, bytes: Uint8Array, message: RegExp])[] = [
  ['another magic number', encodeMessages(1, MESSAGES), /another magic number/],
  ['half a magic number', whole.subarray(0, 3), /another magic number/],
  ['half a header', whole.subarray(0, 10), /no message of netlink at offset 4/],
  ['half a message', whole.subarray(0, 30), /no message of netlink at offset 24/],
  [
    'a length that is too small',
    Uint8Array.of(...whole.subarray(0, 4), ...new Uint8Array(16)),
    /at offset 4/,
  ],
];

for (const [name, bytes, message] of INVALID)
  test(`no messages: ${name}`, () => assert.throws(() => decodeMessages(MAGIC, bytes), message));
