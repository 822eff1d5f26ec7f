import { join } from 'node:path';
import { test } from 'node:test';
import { untilGone } from '../testing/gone.js';
import { CHECKPOINT, RESTORE } from '../testing/options.js';
import { Subject } from '../testing/subject.js';
import { dump } from './dump.js';
import { restore } from './restore.js';

/** Two threads with a timer each on their own CPU time; told to, each of them works until its timer is over. */
const PROGRAM = `
import ctypes, signal, struct, threading
libc = ctypes.CDLL(None, use_errno=True)
def timer(signo):
  event = ctypes.create_string_buffer(struct.pack('<Qii48x', 0, signo, 0), 64); id = ctypes.c_int()
  assert libc.syscall(222, 3, event, ctypes.byref(id)) == 0
  when = ctypes.create_string_buffer(struct.pack('<4q', 0, 0, 0, 200_000_000), 32)
  assert libc.syscall(223, id, 0, when, None) == 0
  return id
fired = {}
begin = [threading.Event(), threading.Event()]; made = threading.Semaphore(0)
def work(n, signo):
  timer(signo); made.release(); begin[n].wait()
  while signo not in fired: pass
signal.signal(34, lambda s, _: fired.setdefault(s)); signal.signal(35, lambda s, _: fired.setdefault(s))
for n in (0, 1): threading.Thread(target=work, args=(n, 34 + n), daemon=True).start(); made.acquire()
turn = [1, 0]
def proceed(*_): begin[turn.pop(0)].set()
signal.signal(signal.SIGUSR1, proceed)
print('ready', flush=True)
told = 0
while True:
  signal.sigtimedwait([], 0.01)
  if len(fired) > told: told = len(fired); print('fired', sorted(fired), flush=True)
`;

test('timers on the CPU time of one of several threads', async () => {
  using subject = Subject.python(PROGRAM);
  await subject.expect(/ready/);
  const directory = join(subject.directory, 'image');
  dump({ ...CHECKPOINT, pid: subject.pid, directory, afterwards: 'run' });
  for (const _round of [1, 2]) {
    dump({ ...CHECKPOINT, pid: subject.pid, directory, overwrite: true });
    await untilGone([subject.pid]);
    restore({ ...RESTORE, directory });
  }
  subject.signal(10);
  await subject.expect(/fired \[35\]/);
  subject.signal(10);
  await subject.expect(/fired \[34, 35\]/);
});
