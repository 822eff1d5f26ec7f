import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { readStat } from '../kernel/procfs/stat.js';
import { readTree } from '../kernel/procfs/tree.js';
import { attempt } from '../kernel/syscall.js';
import { hasMetStop, rememberStop } from '../tape/stops.js';
import { CHECKPOINT, RESTORE } from '../testing/options.js';
import { Subject } from '../testing/subject.js';
import { dump } from './dump.js';
import { UnsupportedError } from './errors.js';
import { restore } from './restore.js';

/** Every kinship a tree can have; whoever sleeps prints what its blocked call answered. */
const FAMILY = `
import os, signal, sys, time, ctypes, threading
libc = ctypes.CDLL(None, use_errno=True)
def child(body):
  pid = os.fork()
  if pid == 0:
    try: body()
    finally: os._exit(0)
  return pid
def tell(*words): os.write(1, (' '.join(map(str, words)) + chr(10)).encode())
def until(what):
  while not what(): time.sleep(0.005)
def pause_forever():
  while True: signal.sigtimedwait((), 0.05)
def wait_forever(): tell('at rest'); pause_forever()

sleeper = child(wait_forever)
leader = child(lambda: (os.setsid(), wait_forever()))
group = child(lambda: (os.setpgid(0, 0), wait_forever()))
until(lambda: os.getpgid(group) == group)
member = child(lambda: (os.setpgid(0, group), wait_forever()))
# A group whose leader has died.
def orphaned_group():
  first = child(lambda: (os.setpgid(0, 0), pause_forever()))
  until(lambda: os.getpgid(first) == first)
  member = child(lambda: (os.setpgid(0, first), wait_forever()))
  until(lambda: os.getpgid(member) == first)
  os.kill(first, 9)
  os.waitpid(first, 0)
  wait_forever()
child(orphaned_group)
# A child that was born before its parent began a session.
def late_session():
  child(wait_forever)
  os.setsid()
  child(wait_forever)
  wait_forever()
child(late_session)
# A session whose leader has died, its members adopted by the subreaper that we are.
libc.prctl(36, 1, 0, 0, 0)
def dying_session():
  os.setsid()
  child(wait_forever)
child(dying_session)
until(lambda: os.waitpid(-1, os.WNOHANG)[0] != 0)
zombie = child(lambda: os._exit(7))
killed = child(pause_forever)
os.kill(killed, 9)
stopped = child(pause_forever)
os.kill(stopped, signal.SIGSTOP)
os.waitid(os.P_PID, stopped, os.WSTOPPED)
for _ in range(3): threading.Thread(target=lambda: time.sleep(10000), daemon=True).start()
AT_REST = ['sleeper', 'leader', 'group', 'member', 'member of a dead leader', 'its parent', 'late session', 'child before', 'child after', 'of a dead session']
until(lambda: open('/proc/self/fd/1').read().count('at rest') == len(AT_REST))
for ended in (zombie, killed): os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)

def report(*_):
  tell('zombie', os.waitpid(zombie, 0)[1], 'killed', os.waitpid(killed, 0)[1])
  os.kill(stopped, signal.SIGCONT)
  os.kill(stopped, 9)
  tell('stopped', os.waitpid(stopped, 0)[1])
signal.signal(signal.SIGUSR1, report)
tell('ready')
while True: time.sleep(0.01)
`;

/** Who is whose child, in which session and group, in which state; threads by id. */
function kinship(root: number): string[] {
  return readTree(root)
    .map(({ pid, parent, tids }) => {
      const { session, pgrp, state, exit_code } = readStat(pid);
      const standing = state === 'T' || state === 'Z' ? state : 'lives';
      // Of a stopped process the kernel shows there whether its parent has heard of it.
      return `${pid} of ${parent}: session ${session}, group ${pgrp}, ${standing}, ${exit_code}, threads ${standing === 'Z' ? '' : tids.join()}`;
    })
    .sort();
}

async function roundTrip(afterwards: 'kill' | 'run' | 'stop'): Promise<void> {
  using subject = Subject.python(FAMILY);
  const members = (): number[] => readTree(subject.pid).map(({ pid }) => pid);
  try {
    await subject.expect(/ready/);
    const before = kinship(subject.pid);
    const directory = join(subject.directory, 'image');
    dump({ ...CHECKPOINT, pid: subject.pid, directory, afterwards });
    if (afterwards === 'kill') {
      assert.ok(!subject.isAlive);
      restore({ ...RESTORE, directory });
    } else if (afterwards === 'stop') {
      while (readStat(subject.pid).state !== 'T') assert.ok(subject.isAlive);
      for (const pid of members())
        if (!before.some((line) => line.startsWith(`${pid} `) && line.includes(' T,')))
          attempt('kill', [pid, 18]);
    }
    // Whoever was stopped gets there when the scheduler lets it.
    const deadline = Date.now() + 10_000;
    while (kinship(subject.pid).join() !== before.join() && Date.now() < deadline);
    assert.deepEqual(kinship(subject.pid), before);
    subject.signal(10);
    await subject.expect(/zombie 1792 killed 9/);
    await subject.expect(/stopped 9/);
  } finally {
    for (const pid of members()) attempt('kill', [pid, 9]);
  }
}

test('a tree of every kinship is killed and comes back', () => roundTrip('kill'));
test('the same tree goes on after a dump', () => roundTrip('run'));
test('the same tree is left stopped, and goes on when it is continued', () => roundTrip('stop'));

test('a SIGSTOP that a killed task met is none of whoever has its number next', async () => {
  using subject = Subject.python(`print('ready', flush=True)\nimport signal\nwhile True: signal.pause()`);
  await subject.expect(/ready/);
  const directory = join(subject.directory, 'image');
  const phase = (name: string): void => {
    if (name === 'commit') rememberStop(subject.pid);
  };
  dump({ ...CHECKPOINT, pid: subject.pid, directory, afterwards: 'kill', hooks: { phase } });
  restore({ ...RESTORE, directory });
  dump({ ...CHECKPOINT, pid: subject.pid, directory, overwrite: true, afterwards: 'run' });
  assert.notEqual(readStat(subject.pid).state, 'T');
  assert.ok(!hasMetStop(subject.pid));
});

test('a process whose first thread alone has ended is refused', async () => {
  using subject = Subject.python(
    `import ctypes, threading, time\nthreading.Thread(target=lambda: time.sleep(1000)).start()\nprint('ready', flush=True)\nctypes.CDLL(None).syscall(60, 0)`,
  );
  await subject.expect(/ready/);
  while (readStat(subject.pid).state !== 'Z');
  const directory = join(subject.directory, 'image');
  assert.throws(
    () => dump({ ...CHECKPOINT, pid: subject.pid, directory, afterwards: 'run' }),
    (error) =>
      error instanceof UnsupportedError && /first thread has ended, and 1 others/.test(error.message),
  );
});

/** Builds are such trees: somebody is always at its end. */
test('a tree whose processes end while it is saved is saved', async () => {
  using subject = Subject.python(`
import os, time
events = [os.eventfd(0) for _ in range(3)]
def spawn():
  if os.fork() == 0: time.sleep(0.15); os._exit(0)
for _ in range(14): spawn()
print('ready', flush=True)
while True: os.wait(); spawn()
`);
  await subject.expect(/ready/);
  const directory = join(subject.directory, 'image');
  for (let round = 0; round < 8; round++)
    dump({ ...CHECKPOINT, pid: subject.pid, directory, afterwards: 'run', overwrite: true });
  for (const { pid } of readTree(subject.pid)) attempt('kill', [pid, 9]);
});
