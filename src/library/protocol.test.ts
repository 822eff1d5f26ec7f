import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RestoreError, UnsupportedError } from '../engine/errors.js';
import { ImageError } from '../image/errors.js';
import { SyscallError } from '../kernel/errors.js';
import { CancelledError, decodeError, encodedError, encodeError } from './errors.js';
import { fromEngine, Lines, toEngine } from './protocol.js';
import { METHODS } from './requests.js';

const ERRORS: readonly Error[] = [
  new SyscallError('openat', 2, '/etc/x'),
  new UnsupportedError([
    { task: 'pid 3 (x)', object: 'descriptor 4 (io_uring)', reason: 'busy' },
    { task: 'pid 3 (x)', object: 'descriptor 5', reason: 'odd', help: 'close it' },
  ]),
  new ImageError('/i/core-1.img', 'is short', { offset: 12 }),
  new ImageError('/i', 'already holds an image'),
  new RestoreError('pid 3 is taken', 'EEXIST', { cause: new SyscallError('clone3', 17) }),
  new CancelledError(),
  Object.assign(new Error('odd'), { name: 'FreezeError', code: 'EFREEZE' }),
];

for (const error of ERRORS)
  test(`${error.name} is the same on the other side: ${error.message.split('\n')[0]}`, () => {
    const wire: unknown = JSON.parse(JSON.stringify(encodeError(error)));
    const decoded = decodeError(encodedError.parse(wire));
    assert.equal(decoded.constructor, error.constructor);
    assert.equal(decoded.message, error.message);
    assert.equal(decoded.name, error.name);
    assert.deepEqual({ ...decoded, cause: undefined }, { ...error, cause: undefined });
    if (error.cause instanceof Error) {
      assert.equal((decoded.cause as Error).constructor, error.cause.constructor);
      assert.equal((decoded.cause as Error).message, error.cause.message);
    }
  });

test('a cycle of causes ends', () => {
  const error = new Error('a');
  error.cause = error;
  assert.ok(JSON.stringify(encodeError(error)).length < 100_000);
});

test('lines are cut wherever the chunks end', () => {
  const stream = Buffer.from('{"a":1}\n{"b":"ü"}\n\n{"c":3}\n');
  for (let size = 1; size <= stream.length; size++) {
    const lines = new Lines();
    const found: string[] = [];
    for (let at = 0; at < stream.length; at += size)
      found.push(...lines.push(stream.subarray(at, at + size)));
    assert.deepEqual(found, ['{"a":1}', '{"b":"ü"}', '', '{"c":3}']);
  }
});

test('a partial line does not keep the reader’s buffer', () => {
  const lines = new Lines();
  const buffer = Buffer.from('abc');
  assert.deepEqual(lines.push(buffer), []);
  buffer.fill(0x78);
  assert.deepEqual(lines.push(Buffer.from('d\n')), ['abcd']);
});

test('messages that are none are refused', () => {
  for (const message of [
    {},
    { type: 'call' },
    { type: 'call', id: -1, method: 'check' },
    { type: 'call', id: 1, method: 'rm' },
  ])
    assert.throws(() => toEngine.parse(message));
  for (const message of [
    { type: 'phase', id: 1 },
    { type: 'exit', pid: 1 },
    { type: 'error', id: 1, error: { kind: 'x' } },
  ])
    assert.throws(() => fromEngine.parse(message));
});

test('options have defaults, and unknown ones are refused', () => {
  const { afterwards, durable, timeout_ms } = METHODS.checkpoint.parse({ pid: 3, directory: '/x' });
  assert.deepEqual(
    { afterwards, durable, timeout_ms },
    { afterwards: 'kill', durable: true, timeout_ms: 10_000 },
  );
  assert.throws(() => METHODS.checkpoint.parse({ pid: 3, directory: '/x', leaveRunning: true }));
  assert.throws(() => METHODS.checkpoint.parse({ pid: 0, directory: '/x' }));
  assert.throws(() => METHODS.restore.parse({ directory: '' }));
});
