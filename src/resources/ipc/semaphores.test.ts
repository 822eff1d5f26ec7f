import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { GETPID, IPC_RMID, SETVAL } from '../../abi/ipc.js';
import { STASIS } from '../../cli/testing.js';
import { dump } from '../../engine/dump.js';
import { restore } from '../../engine/restore.js';
import type { ImageReader } from '../../image/index.js';
import { readTree } from '../../kernel/procfs/tree.js';
import { attempt } from '../../kernel/syscall.js';
import { untilGone } from '../../testing/gone.js';
import { CHECKPOINT, RESTORE } from '../../testing/options.js';
import { Subject } from '../../testing/subject.js';
import { type SemaphoreSet, valuesOf } from './semaphore-sets.js';
import { adjustmentsIn } from './semaphores.js';

/** The sets are this test's own: in an IPC namespace that ends with it. */
function inOwnNamespace(): boolean {
  if (process.env.STASIS_TEST_IPC === import.meta.url) return true;
  const args = ['--ipc', process.execPath, '--test-reporter=spec', new URL(import.meta.url).pathname];
  const env: NodeJS.ProcessEnv = { ...process.env, STASIS_TEST_IPC: import.meta.url };
  delete env.NODE_TEST_CONTEXT;
  const result = spawnSync('unshare', args, { env, encoding: 'utf8', timeout: 120_000 });
  test('in an IPC namespace of its own', () => assert.equal(result.status, 0, result.stdout + result.stderr));
  return false;
}

const PRELUDE = `
import ctypes, os, signal, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
class sembuf(ctypes.Structure): _fields_ = [('num', ctypes.c_ushort), ('op', ctypes.c_short), ('flg', ctypes.c_short)]
UNDO = 0o10000
def semop(set, *ops):
  if libc.semop(set, (sembuf * len(ops))(*[sembuf(*op) for op in ops]), len(ops)) != 0: raise OSError(ctypes.get_errno(), 'semop')
def make(*values):
  set = libc.semget(0, len(values), 0o1600)
  for number, value in enumerate(values): libc.semctl(set, number, 16, value)
  return set
def tell(*words): os.write(1, (' '.join(map(str, words)) + chr(10)).encode())
`;
const WAIT = `
tell('ready')
while True: signal.pause()
`;

interface Case {
  readonly code: string;
  /** How many sets it makes, with how many semaphores. */
  readonly counts: readonly number[];
  /** Before, when it was killed, and after its end. */
  readonly held: readonly (readonly number[])[];
  readonly released: readonly (readonly number[])[];
}

function setOf(id: number, count: number): SemaphoreSet {
  return { id, key: 0, count, isUsed: true };
}

async function start(code: string): Promise<{ subject: Subject; ids: number[] }> {
  const subject = Subject.python(PRELUDE + code + WAIT);
  await subject.expect(/ready/);
  return { subject, ids: [...subject.output.matchAll(/set (\d+)/g)].map(([, id]) => Number(id)) };
}

async function roundTrip({ code, counts, held, released }: Case): Promise<void> {
  const { subject, ids } = await start(code);
  using _ = subject;
  const values = () => counts.map((count, index) => valuesOf(setOf(ids[index] ?? -1, count)));
  const members = readTree(subject.pid).map(({ pid }) => pid);
  const directory = join(subject.directory, 'image');
  try {
    assert.deepEqual(values(), held);
    const users = ids.map((id) => attempt('semctl', [id, 0, GETPID, 0]));
    dump({ ...CHECKPOINT, pid: subject.pid, directory, afterwards: 'run' });
    assert.deepEqual(values(), held);
    assert.deepEqual(
      ids.map((id) => attempt('semctl', [id, 0, GETPID, 0])),
      users,
    );
    for (const _round of [1, 2]) {
      rmSync(directory, { recursive: true });
      dump({ ...CHECKPOINT, pid: subject.pid, directory });
      await untilGone(members);
      assert.deepEqual(values(), released);
      restore({ ...RESTORE, directory });
      assert.deepEqual(values(), held);
    }
  } finally {
    for (const pid of members) attempt('kill', [pid, 9]);
  }
  await untilGone(members);
  assert.deepEqual(values(), released);
  for (const id of ids) attempt('semctl', [id, 0, IPC_RMID, 0]);
}

const CASES: Record<string, Case> = {
  'one process, both signs, the limits, several sets': {
    code: `
a = make(5, 0, 100, 32767); b = make(1); c = make(3); tell('set', a); tell('set', b); tell('set', c)
semop(a, (0, -3, UNDO)); semop(a, (1, 7, UNDO)); semop(a, (3, -32767, UNDO)); semop(a, (2, 1, 0))
semop(b, (0, 32766, UNDO)); semop(b, (0, -32767, 0)); semop(b, (0, 2, UNDO))
semop(c, (0, -1, 0))`,
    counts: [4, 1, 1],
    held: [[2, 7, 101, 0], [2], [2]],
    // What would fall below 0 stops there.
    released: [[5, 0, 101, 32767], [0], [2]],
  },
  'threads share what they undo': {
    code: `
a = make(4); tell('set', a)
def work(): semop(a, (0, -1, UNDO)); done.release(); threading.Event().wait()
done = threading.Semaphore(0)
for _ in range(2): threading.Thread(target=work, daemon=True).start()
for _ in range(2): done.acquire()
semop(a, (0, -1, UNDO))`,
    counts: [1],
    held: [[1]],
    released: [[4]],
  },
  'parent and child, each its own': {
    code: `
a = make(10, 10); tell('set', a)
r, w = os.pipe()
if os.fork() == 0:
  semop(a, (0, -2, UNDO)); os.write(w, b'x')
  while True: signal.pause()
os.read(r, 1); semop(a, (0, -3, UNDO), (1, -1, UNDO))`,
    counts: [2],
    held: [[5, 9]],
    released: [[10, 10]],
  },
  'a set of many semaphores': {
    code: `
a = make(*[1] * 300); tell('set', a)
semop(a, (299, -1, UNDO)); semop(a, (150, 4, UNDO))`,
    counts: [300],
    held: [Array.from({ length: 300 }, (_, n) => (n === 299 ? 0 : n === 150 ? 5 : 1))],
    released: [Array.from({ length: 300 }, () => 1)],
  },
  'values that would be cut off, of several processes': {
    code: `
a = make(0, 0); tell('set', a)
r, w = os.pipe()
if os.fork() == 0:
  semop(a, (0, 3, UNDO), (1, 5, UNDO)); os.write(w, b'x')
  while True: signal.pause()
os.read(r, 1); semop(a, (0, 3, UNDO)); semop(a, (0, -2, 0)); semop(a, (1, -5, 0))`,
    counts: [2],
    held: [[4, 0]],
    released: [[0, 0]],
  },
  'a set of more semaphores than there are by default': {
    code: `
open('/proc/sys/kernel/sem', 'w').write('40000 1024000000 500 32000')
a = libc.semget(0, 40000, 0o1600); libc.semctl(a, 39999, 16, 2); tell('set', a)
semop(a, (39999, -1, UNDO)); semop(a, (0, 4, UNDO))`,
    counts: [40000],
    held: [Array.from({ length: 40000 }, (_, n) => (n === 39999 ? 1 : n === 0 ? 4 : 0))],
    released: [Array.from({ length: 40000 }, (_, n) => (n === 39999 ? 2 : 0))],
  },
  'nothing to undo': {
    code: `
a = make(2); tell('set', a); semop(a, (0, -1, 0)); semop(a, (0, -1, UNDO)); semop(a, (0, 1, UNDO))`,
    counts: [1],
    held: [[1]],
    released: [[1]],
  },
};

if (inOwnNamespace()) {
  for (const [name, each] of Object.entries(CASES)) test(name, () => roundTrip(each));

  test('whoever has taken it meanwhile is in the way', async () => {
    const { subject, ids } = await start("a = make(1); tell('set', a); semop(a, (0, -1, UNDO))");
    using _ = subject;
    const directory = join(subject.directory, 'image');
    dump({ ...CHECKPOINT, pid: subject.pid, directory });
    const [id = -1] = ids;
    attempt('semctl', [id, 0, SETVAL, 0]);
    assert.throws(
      () => restore({ ...RESTORE, directory }),
      /semaphore set \d+ .*held 1 of number 0 \(now 0\)/,
    );
    attempt('semctl', [id, 0, IPC_RMID, 0]);
    assert.throws(() => restore({ ...RESTORE, directory }), /SEM_UNDO.*not there any more/);
  });

  test('a set that may not be read is refused by its name, before the freeze', async () => {
    const { subject, ids } = await start(
      "os.setuid(1000); a = make(1); tell('set', a); semop(a, (0, -1, UNDO))",
    );
    using _ = subject;
    const [id = -1] = ids;
    const check = ['check', '--pid', `${subject.pid}`];
    const denied = spawnSync('setpriv', ['--bounding-set=-ipc_owner', STASIS, ...check], {
      encoding: 'utf8',
    });
    assert.match(denied.stdout, new RegExp(`semaphore set ${id} .*cannot be read \\(semctl.GETALL.*EACCES`));
    assert.equal(denied.status, 3);
    const allowed = spawnSync(STASIS, check, { encoding: 'utf8' });
    assert.equal(allowed.status, 0, allowed.stdout + allowed.stderr);
    attempt('semctl', [id, 0, IPC_RMID, 0]);
  });

  test('lists that are shared otherwise than by threads are refused', async () => {
    const { subject } = await start(`
a = make(1); tell('set', a); semop(a, (0, -1, UNDO))
if libc.syscall(56, 0x40000 | 17, 0, 0, 0, 0) == 0:
  while True: signal.pause()`);
    using _ = subject;
    const members = readTree(subject.pid).map(({ pid }) => pid);
    const directory = join(subject.directory, 'image');
    assert.throws(() => dump({ ...CHECKPOINT, pid: subject.pid, directory }), /shared with pid \d+/);
    assert.ok(subject.isAlive);
    for (const pid of members) attempt('kill', [pid, 9]);
  });
}

test('what is in the file is checked', () => {
  const good = { pid: 1, set: 2, key: 3, adjustments: [[0, -5]] };
  assert.deepEqual(adjustmentsIn(imageOf({ version: 1, undo: [good] })), [good]);
  for (const bad of [
    { version: 2, undo: [good] },
    { version: 1 },
    { version: 1, undo: [{ ...good, adjustments: [] }] },
    { version: 1, undo: [{ ...good, adjustments: [[0, 40000]] }] },
    { version: 1, undo: [{ ...good, pid: 'x' }] },
  ])
    assert.throws(() => adjustmentsIn(imageOf(bad)), /stasis-sysv-sem\.json/);
});

function imageOf(undo: unknown): ImageReader {
  return { bytes: () => Buffer.from(JSON.stringify(undo)) } as unknown as ImageReader;
}
