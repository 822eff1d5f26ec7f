import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { untilGone } from '../testing/gone.js';
import { CHECKPOINT, RESTORE } from '../testing/options.js';
import { Subject } from '../testing/subject.js';
import { dump } from './dump.js';
import { restore } from './restore.js';

/** Gives back its stack but for the page below what it uses. */
const FULL = `
import ctypes, os, signal, sys
libc = ctypes.CDLL(None); libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
def tell(*words): os.write(1, (' '.join(map(str, words)) + chr(10)).encode())
def start(): return next(int(line.split('-')[0], 16) for line in open('/proc/self/maps') if line.endswith('[stack]\\n'))
libc.munmap(start(), 0)
r, w = os.pipe()
if os.fork() == 0:
  while True:
    fields = open('/proc/%d/syscall' % os.getppid()).read().split()
    if len(fields) > 2: os.write(w, fields[-2].encode()); os._exit(0)
os.wait()
end = (int(os.read(r, 64), 16) - 4096) & -4096
assert libc.munmap(start(), end - start()) == 0
signal.signal(signal.SIGUSR1, lambda *_: tell('alive'))
tell('ready')
while True: signal.sigtimedwait((), 0.05)
`;

test('a stack that is full to its last page grows for the way back', async () => {
  using subject = Subject.python(FULL);
  await subject.expect(/ready/);
  const directory = join(subject.directory, 'image');
  dump({ ...CHECKPOINT, pid: subject.pid, directory, afterwards: 'run' });
  assert.ok(subject.isAlive);
  dump({ ...CHECKPOINT, pid: subject.pid, directory, overwrite: true });
  await untilGone([subject.pid]);
  restore({ ...RESTORE, directory });
  subject.signal(10);
  await subject.expect(/alive/);
});
