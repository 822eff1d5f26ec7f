import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ENTRY, HEADER_SIZE } from './layout.js';
import { printTape } from './print.js';
import { deferred, Tape } from './tape.js';

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

test('a result is linked by the address of its cell, marked in the flags', () => {
  const tape = new Tape('t');
  const fd = tape.call('openat', [-100, tape.string('/x'), 0, 0]);
  tape.call('close', [fd]);
  const view = viewOf(tape.assemble(0x1000n));
  const second = HEADER_SIZE + 80;
  assert.equal(
    view.getBigUint64(second + ENTRY.arguments, true),
    0x1000n + BigInt(HEADER_SIZE + ENTRY.result),
  );
  assert.equal(view.getBigUint64(second + ENTRY.flags, true), 1n);
});

test('expectations become flags and an expected value', () => {
  const tape = new Tape('t');
  tape.call('getpid', []);
  tape.call('getpid', [], 'any');
  tape.call('getpid', [], -2);
  const view = viewOf(tape.assemble(0n));
  const flags = [0, 1, 2].map((i) => view.getBigUint64(HEADER_SIZE + i * 80 + ENTRY.flags, true));
  assert.deepEqual(flags, [0n, 0x100n, 0x200n]);
  assert.equal(view.getBigInt64(HEADER_SIZE + 160 + ENTRY.expected, true), -2n);
});

test('spaces keep their bytes, and pointers into them are written on assembly', () => {
  const tape = new Tape('t');
  const data = tape.space(Uint8Array.of(1, 2, 3));
  const vector = tape.space(16);
  tape.pointer(vector, 0, data);
  tape.call('writev', [1, vector, 1]);
  const bytes = tape.assemble(0x4000n);
  const view = viewOf(bytes);
  const dataAt = tape.size - tape.dataLength;
  assert.deepEqual([...bytes.subarray(dataAt, dataAt + 3)], [1, 2, 3]);
  assert.equal(view.getBigUint64(dataAt + vector.offset, true), 0x4000n + BigInt(dataAt));
});

test('a deferred operand must be known when the tape is assembled', () => {
  const tape = new Tape('t');
  const pid = deferred('holder');
  tape.call('pidfd_open', [pid, 0]);
  assert.throws(() => tape.assemble(0n), /holder is not known yet/);
  assert.match(printTape(tape), /pidfd_open\(<holder>/);
  pid.value = 7;
  tape.assemble(0n);
});

test('strings with NUL bytes and calls with seven arguments are refused', () => {
  const tape = new Tape('t');
  assert.throws(() => tape.string('a\0b'), RangeError);
  assert.throws(() => tape.call('mmap', [0, 0, 0, 0, 0, 0, 0]), RangeError);
});

test('it prints in the manner of strace', () => {
  const tape = new Tape('files of pid 5');
  tape.about('descriptor 7');
  const fd = tape.call('openat', [-100, tape.string('/etc/passwd'), 0x80000, 0]);
  tape.call('dup3', [fd, 7, 0]);
  const text = printTape(tape);
  assert.match(text, /# files of pid 5/);
  assert.match(text, /## descriptor 7/);
  assert.match(text, /openat\(AT_FDCWD, "\/etc\/passwd", O_RDONLY\|O_CLOEXEC/);
  assert.match(text, /dup3\(\[0\], 7/);
});
