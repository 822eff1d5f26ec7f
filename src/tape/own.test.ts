import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OwnTape } from './own.js';
import { Tape } from './tape.js';

test('this process plays a tape of its own, again and again', () => {
  const tape = new Tape('t');
  const ends = tape.space(8);
  tape.call('pipe2', [ends, 0]);
  const wrong = tape.call('close', [-1], 'any');
  const file = tape.call('openat', [-100, tape.string('/proc/self/comm'), 0, 0]);
  const text = tape.space(64);
  const count = tape.call('read', [file, text, 64]);
  tape.call('close', [file]);
  using own = new OwnTape(tape);
  for (let round = 0; round < 3; round++) {
    const played = own.play('read');
    assert.equal(played.number(wrong), -9);
    const length = played.number(count);
    assert.match(Buffer.from(played.read(text)).toString('latin1', 0, length), /^\S.*\n$/);
    const [read, write] = [0, 4].map((at) => played.view(ends).getInt32(at, true));
    assert.ok(read !== undefined && write === read + 1, `${read} ${write}`);
  }
});

test('it ends at an answer that is not as expected', () => {
  const tape = new Tape('t');
  const first = tape.call('close', [-1]);
  const second = tape.call('getpid', []);
  using own = new OwnTape(tape);
  const played = own.play('close');
  assert.equal(played.number(first), -9);
  assert.equal(played.number(second), -1);
});
