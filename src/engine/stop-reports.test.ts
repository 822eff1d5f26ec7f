import { join } from 'node:path';
import { test } from 'node:test';
import { readState } from '../kernel/procfs/stat.js';
import { readTree } from '../kernel/procfs/tree.js';
import { attempt } from '../kernel/syscall.js';
import { untilGone } from '../testing/gone.js';
import { CHECKPOINT, RESTORE } from '../testing/options.js';
import { Subject } from '../testing/subject.js';
import { dump } from './dump.js';
import { restore } from './restore.js';

/**
 * Five children, each in a group of its own: stopped and waited for (of one thread, of several, by SIGTSTP), stopped and
 * not waited for. Every SIGCHLD is counted.
 */
const PARENT = `
import os, signal, sys, threading
def tell(*words): os.write(1, (' '.join(map(str, words)) + chr(10)).encode())
told = []
signal.signal(signal.SIGCHLD, lambda *_: told.append(1))
def child(threads=1):
  r, w = os.pipe(); pid = os.fork()
  if pid == 0:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL); os.setpgid(0, 0)
    for _ in range(threads - 1): threading.Thread(target=lambda: threading.Event().wait(), daemon=True).start()
    os.write(w, b'x')
    while True: signal.pause()
  os.read(r, 1); return pid
def stopped(pid): return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
def news(pid):
  info = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG)
  return 0 if info is None else info.si_status
children = [child(), child(3), child(), child(), child(2)]
for pid, s in zip(children, (19, 19, 20, 19, 19)): os.kill(pid, s); stopped(pid)
assert [news(pid) for pid in children[:3]] == [19, 19, 20]
before = len(told)
def check(*_):
  tell('told', len(told) - before, 'news', [news(pid) for pid in children])
signal.signal(signal.SIGUSR1, check)
def end(*_):
  for pid in children: os.kill(pid, signal.SIGCONT)
  for pid in children: os.kill(pid, signal.SIGTERM)
  tell('ends', [os.waitpid(pid, 0)[1] for pid in children])
signal.signal(signal.SIGUSR2, end)
tell('ready')
while True: signal.pause()
`;

const SIGUSR1 = 10;
const SIGUSR2 = 12;

for (const rounds of [1, 2])
  test(`a parent hears of a stop once, ${rounds} times dumped and restored`, async () => {
    using subject = Subject.python(PARENT);
    await subject.expect(/ready/);
    const members = readTree(subject.pid).map(({ pid }) => pid);
    const directory = join(subject.directory, 'image');
    try {
      dump({ ...CHECKPOINT, pid: subject.pid, directory, afterwards: 'run' });
      for (let round = 0; round < rounds; round++) {
        dump({ ...CHECKPOINT, pid: subject.pid, directory, overwrite: true });
        await untilGone(members);
        restore({ ...RESTORE, directory });
      }
      for (const pid of members.slice(1)) while (readState(pid, pid) !== 'T');
      subject.signal(SIGUSR1);
      await subject.expect(/told 0 news \[0, 0, 0, 19, 19\]/);
      subject.signal(SIGUSR1);
      await subject.expect(/told 0 news \[0, 0, 0, 0, 0\]/);
      subject.signal(SIGUSR2);
      await subject.expect(/ends \[15, 15, 15, 15, 15\]/);
    } finally {
      for (const pid of members) attempt('kill', [pid, 9]);
    }
  });

/** A SIGCHLD that the parent has not taken yet stays one, with what it says. */
const PENDING = `
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
pid = os.fork()
if pid == 0:
  os.setpgid(0, 0)
  while True: signal.pause()
os.kill(pid, 19); os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
def check(*_):
  info = signal.sigtimedwait([signal.SIGCHLD], 0)
  print('told', info.si_pid == pid, info.si_status, signal.sigtimedwait([signal.SIGCHLD], 0), flush=True)
signal.signal(signal.SIGUSR1, check)
print('ready', flush=True)
while True: signal.pause()
`;

test('news that waits for the parent waits on', async () => {
  using subject = Subject.python(PENDING);
  await subject.expect(/ready/);
  const members = readTree(subject.pid).map(({ pid }) => pid);
  const directory = join(subject.directory, 'image');
  try {
    dump({ ...CHECKPOINT, pid: subject.pid, directory });
    await untilGone(members);
    restore({ ...RESTORE, directory });
    subject.signal(SIGUSR1);
    await subject.expect(/told True 19 None/);
  } finally {
    for (const pid of members) attempt('kill', [pid, 9]);
  }
});
