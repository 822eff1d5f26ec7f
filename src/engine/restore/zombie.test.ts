import assert from 'node:assert/strict';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { readTree } from '../../kernel/procfs/tree.js';
import { attempt } from '../../kernel/syscall.js';
import { untilGone } from '../../testing/gone.js';
import { CHECKPOINT, RESTORE } from '../../testing/options.js';
import { Subject } from '../../testing/subject.js';
import { dump } from '../dump.js';
import { restore } from '../restore.js';

/** Zombies of the same signal, one of which has left a core dump where that is possible at all. */
const PARENT = `
import os, resource, signal, sys
os.chdir(sys.argv[0].rsplit('/', 1)[0]); os.mkdir('dumps'); os.chdir('dumps')
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
def end(limit):
  pid = os.fork()
  if pid == 0: resource.setrlimit(resource.RLIMIT_CORE, (limit, hard)); os.abort()
  info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
  return pid, info.si_status | (128 if info.si_code == 3 else 0)
ended = [end(0), end(hard)]
def tell(*_): print('as before', all(os.waitpid(pid, 0)[1] == status for pid, status in ended), flush=True)
signal.signal(signal.SIGUSR1, tell)
print('ended', [status for _, status in ended], flush=True)
while True: signal.pause()
`;

test('a zombie that has left a core dump says so, and leaves no other', async () => {
  using subject = Subject.python(PARENT);
  await subject.expect(/ended \[6, (6|134)\]/);
  const members = readTree(subject.pid).map(({ pid }) => pid);
  const dumps = join(subject.directory, 'dumps');
  const directory = join(subject.directory, 'image');
  try {
    for (const name of readdirSync(dumps)) rmSync(join(dumps, name));
    dump({ ...CHECKPOINT, pid: subject.pid, directory });
    await untilGone(members);
    restore({ ...RESTORE, directory });
    assert.deepEqual(readdirSync(dumps), []);
    subject.signal(10);
    await subject.expect(/as before True/);
  } finally {
    for (const pid of members) attempt('kill', [pid, 9]);
  }
});
