import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ImageError, type ImageReader } from '../../image/index.js';
import { readExtras } from './tcp-extra.js';

function read(text: string | undefined): ReturnType<typeof readExtras> {
  const bytes = text === undefined ? undefined : Buffer.from(text);
  return readExtras({ bytes: () => bytes } as unknown as ImageReader);
}

test('what is beside the image of a TCP socket', () => {
  assert.equal(read(undefined).size, 0);
  const extra = { options: { 18: 5 }, congestion: 'reno', local: { port: 1, words: [2] }, hasError: true };
  assert.deepEqual(read(JSON.stringify({ 7: extra })), new Map([[7, extra]]));
});

const INVALID: readonly string[] = [
  '[]',
  '7',
  '{"1":{}}',
  '{"1":{"options":{"18":"x"}}}',
  '{"1":{"options":{},"congestion":7}}',
  '{"1":{"options":{},"congestion":"far too long a name"}}',
  '{"1":{"options":{},"local":{"port":70000,"words":[1]}}}',
  '{"1":{"options":{},"local":{"port":7,"words":[1,2]}}}',
  '{"1":{"options":{},"hasError":1}}',
];

for (const text of INVALID)
  test(`refused: ${text}`, () =>
    assert.throws(
      () => read(text),
      (error) => error instanceof ImageError,
    ));

test('refused: no JSON', () =>
  assert.throws(
    () => read('{'),
    (error) => error instanceof ImageError,
  ));
