import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Entry, Journal, JournalError, JournalReader } from './journal.js';
import { ballastOf, PAGE_BYTES, Party } from './party.js';

function report(beat: number): Entry {
  return { kind: 'report', question: 'report', beat, remembered: ['a b'], memory: {}, starts: 1 };
}

function written(): { lines: string[]; entries: Entry[] } {
  const lines: string[] = [];
  const entries = [1, 2, 3].map(report);
  const journal = new Journal((line) => lines.push(line));
  for (const entry of entries) journal.add(entry);
  return { lines, entries };
}

test('a journal is read in any pieces', () => {
  const { lines, entries } = written();
  const text = lines.join('');
  for (const size of [1, 7, 100, text.length]) {
    const reader = new JournalReader();
    const read: Entry[] = [];
    for (let at = 0; at < text.length; at += size) read.push(...reader.push(text.slice(at, at + size)));
    assert.deepEqual(read, entries);
  }
});

test('a record that is lost, repeated, swapped or changed breaks the chain', () => {
  const { lines } = written();
  const [first = '', second = '', third = ''] = lines;
  for (const wrong of [
    [first, third],
    [first, second, second],
    [second, first, third],
    [first, second.replace('"beat":2', '"beat":3')],
    [second],
  ])
    assert.throws(() => new JournalReader().push(wrong.join('')), JournalError);
});

test('parties with the same seed agree, and one changed byte of memory tells them apart', () => {
  const pages = 3;
  const party = new Party(ballastOf('seed', 'name', pages));
  const twin = new Party(ballastOf('seed', 'name', pages));
  const memory = ballastOf('seed', 'name', pages);
  memory[2 * PAGE_BYTES + 100] = (memory[2 * PAGE_BYTES + 100] ?? 0) ^ 1;
  const changed = new Party(memory);
  assert.notEqual(party.memoryHash, changed.memoryHash);
  const states = [1, 2, 3].map((beat) => [party, twin, changed].map((each) => each.step(beat)));
  assert.deepEqual(
    states.map(([mine, same, other]) => [mine === same, mine === other]),
    [
      [true, true],
      [true, false],
      [true, false],
    ],
  );
  assert.equal(party.memoryHash, twin.memoryHash);
});
