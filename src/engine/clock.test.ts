import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { createMessage, ImageReader, writeFileOfKind } from '../image/index.js';
import { readNamespace } from '../kernel/procfs/ns.js';
import { attempt } from '../kernel/syscall.js';
import { CHECKPOINT, RESTORE } from '../testing/options.js';
import { Subject } from '../testing/subject.js';
import { dump } from './dump.js';
import { restore } from './restore.js';

const AHEAD = 1_000_000n;
const CODE = `
import time
last = 0
while True:
  now = time.clock_gettime(time.CLOCK_MONOTONIC)
  boot = time.clock_gettime(time.CLOCK_BOOTTIME)
  print('back' if now < last else 'lap', int(now), int(boot), flush=True)
  last = now
  time.sleep(0.01)
`;

test('on a host that was booted later, the clocks of a tree go on in a time namespace', async () => {
  using subject = Subject.python(CODE);
  await subject.expect(/lap/);
  const directory = join(subject.directory, 'image');
  for (const round of [1n, 2n]) {
    dump({ ...CHECKPOINT, pid: subject.pid, directory, overwrite: true });
    // As if it came from a host that has been up for longer than this one.
    using reader = ImageReader.open(directory);
    const [{ monotonic, boottime } = {}] = reader.read('timens', 0);
    assert.ok(monotonic !== undefined && boottime !== undefined);
    monotonic.tvSec += AHEAD;
    boottime.tvSec += AHEAD;
    writeFileOfKind(join(directory, 'timens-0.img'), 'timens', [
      createMessage('timens', { monotonic, boottime }),
    ]);
    restore({ ...RESTORE, directory });
    const later = monotonic.tvSec;
    assert.ok(later >= round * AHEAD);
    await subject.expect(
      new RegExp(
        `lap ${later.toString().slice(0, -3)}\\d{3} ${boottime.tvSec.toString().slice(0, -3)}\\d{3}`,
      ),
    );
    assert.notEqual(readNamespace(subject.pid, 'time').inode, readNamespace(process.pid, 'time').inode);
    assert.doesNotMatch(subject.output, /back/);
  }
  attempt('kill', [subject.pid, 9]);
});
