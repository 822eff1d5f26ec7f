import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { attempt } from '../kernel/syscall.js';
import { waitFor } from '../kernel/wait.js';
import { type Actor, playOne, TapeError } from './play.js';
import { startStem } from './stem.js';
import { Tape } from './tape.js';

const WORKSPACE = { address: 0x1000_0000_0000n, size: 1n << 20n };

function withStem(body: (stem: Actor) => void): void {
  const stem = startStem({ workspace: WORKSPACE, sliceSize: 1 << 19, name: 'subject' });
  try {
    body(stem);
  } finally {
    attempt('kill', [stem.tid, 9]);
    waitFor(stem.tid);
  }
}

test('a stem plays calls, references and buffers', () => {
  withStem((stem) => {
    const tape = new Tape('read comm');
    const pid = tape.call('getpid', []);
    const fd = tape.call('openat', [-100, tape.string('/proc/self/comm'), 0, 0]);
    const text = tape.space(64);
    const length = tape.call('read', [fd, text, 64]);
    tape.call('read', [99, text, 1], -9);
    const played = playOne(stem, tape);
    assert.equal(played.result(pid), BigInt(stem.tid));
    // The kernel names a task executed from a memfd after its descriptor.
    const comm = Buffer.from(played.read(text).subarray(0, Number(played.result(length)))).toString();
    assert.equal(comm, readFileSync(`/proc/${stem.tid}/comm`, 'utf8'));
  });
});

test('a tape stops at the first unexpected answer, and the error says which', () => {
  withStem((stem) => {
    const tape = new Tape('files of pid 1');
    tape.about('descriptor 3');
    tape.call('openat', [-100, tape.string('/no/such/file'), 0, 0]);
    const never = tape.call('getpid', []);
    assert.throws(
      () => playOne(stem, tape),
      (error: unknown) => {
        assert.ok(error instanceof TapeError);
        assert.equal(error.code, 'ENOENT');
        assert.equal(error.played.result(never), -1n);
        assert.match(
          error.message,
          /subject: files of pid 1, descriptor 3: openat\(AT_FDCWD, "\/no\/such\/file"/,
        );
        return true;
      },
    );
  });
});

test('a copy puts a result into a structure', () => {
  withStem((stem) => {
    const tape = new Tape('poll');
    const fd = tape.call('eventfd2', [1, 0]);
    const pollfd = tape.space(Uint8Array.of(0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0));
    tape.copy(fd, pollfd, 0);
    const ready = tape.call('poll', [pollfd, 1, 0]);
    const played = playOne(stem, tape);
    assert.equal(played.result(ready), 1n);
    assert.equal(played.view(pollfd).getInt32(0, true), Number(played.result(fd)));
  });
});

test('a thousand calls are one stop', () => {
  withStem((stem) => {
    const tape = new Tape('many');
    for (let i = 0; i < 1000; i++) tape.call('getppid', [], process.pid);
    playOne(stem, tape);
  });
});
