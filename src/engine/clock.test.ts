import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { createMessage, ImageReader, writeFileOfKind } from '../image/index.js';
import { readNamespace } from '../kernel/procfs/ns.js';
import { attempt } from '../kernel/syscall.js';
import { untilGone } from '../testing/gone.js';
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
    const [ids] = reader.read('ids', subject.pid);
    const id = round === 1n ? 0 : (ids?.timeNsId ?? 0);
    const [{ monotonic, boottime } = {}] = reader.read('timens', id);
    assert.ok(monotonic !== undefined && boottime !== undefined);
    monotonic.tvSec += AHEAD;
    boottime.tvSec += AHEAD;
    writeFileOfKind(join(directory, `timens-${id}.img`), 'timens', [
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

/** Nearly always in the vDSO. */
const ASKS = `
import time
print('asks', flush=True)
while True: time.clock_gettime_ns(time.CLOCK_MONOTONIC)
`;

test('who was asking for the time in a time namespace finds the answer in one', async () => {
  using maker = Subject.python(ASKS);
  using subject = Subject.start([
    'unshare',
    '--time',
    '/usr/bin/python3',
    join(maker.directory, 'subject.py'),
  ]);
  await subject.expect(/asks/);
  const directory = join(subject.directory, 'image');
  for (let round = 0; round < 8; round++) {
    assert.notEqual(readNamespace(subject.pid, 'time').inode, readNamespace(process.pid, 'time').inode);
    dump({ ...CHECKPOINT, pid: subject.pid, directory, overwrite: true });
    await untilGone([subject.pid]);
    restore({ ...RESTORE, directory });
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.ok(subject.isAlive, `round ${round}`);
  }
});
