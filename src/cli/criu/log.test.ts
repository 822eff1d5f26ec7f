import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Log } from './log.js';

function logged(level: number, say: (log: Log) => void): string {
  const directory = mkdtempSync(join(tmpdir(), 'stasis-log-'));
  try {
    const file = join(directory, 'dump.log');
    const log = new Log(level);
    log.debug('early');
    log.open(file);
    say(log);
    log.close();
    assert.equal(statSync(file).mode & 0o777, 0o600);
    return readFileSync(file, 'utf8');
  } finally {
    rmSync(directory, { recursive: true });
  }
}

function sayAll(log: Log): void {
  log.error('freeze', 'broken\ntwice');
  log.warn('files', 'odd');
  log.info('going on');
  log.debug('detail');
}

test('levels up to 2 have no times', () => {
  assert.equal(logged(0, sayAll), '');
  assert.equal(logged(1, sayAll), 'Error (freeze): broken\nError (freeze): twice\n');
  assert.equal(logged(2, sayAll), 'Error (freeze): broken\nError (freeze): twice\nWarn  (files): odd\n');
});

test('from level 3 on every line begins with the time', () => {
  const lines = logged(4, sayAll).trimEnd().split('\n');
  for (const line of lines) assert.match(line, /^\(\d\d\.\d{6}\) /);
  assert.deepEqual(
    lines.map((line) => line.slice(12)),
    ['early', 'Error (freeze): broken', 'Error (freeze): twice', 'Warn  (files): odd', 'going on', 'detail'],
  );
});

test('the first error is kept', () => {
  const log = new Log(0);
  log.error('a', 'first');
  log.error('b', 'second');
  assert.equal(log.firstError, 'first');
});
