import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { refusalsOf } from '../../engine/check.js';
import { dump } from '../../engine/dump.js';
import { restore } from '../../engine/restore.js';
import { readDescriptors } from '../../kernel/procfs/descriptors.js';
import { readTree } from '../../kernel/procfs/tree.js';
import { attempt } from '../../kernel/syscall.js';
import { untilGone } from '../../testing/gone.js';
import { CHECKPOINT, RESTORE } from '../../testing/options.js';
import { Subject } from '../../testing/subject.js';

const PRELUDE = `
import fcntl, mmap, os, signal, struct, sys
D = os.path.dirname(sys.argv[0]); os.chdir(D)
OFD_GETLK, OFD_SETLK = 36, 37
def tell(*words): os.write(1, (' '.join(map(str, words)) + chr(10)).encode())
def make(name, flags=os.O_RDWR): return os.open(name, flags | os.O_CREAT, 0o600)
def lock(fd, type, start, length, command=fcntl.F_SETLK):
  return fcntl.fcntl(fd, command, struct.pack('hhqqi4x', type, 0, start, length, 0))
def child(body):
  pid = os.fork()
  if pid == 0:
    try: body()
    finally: os._exit(0)
  return pid
R, W, U = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
`;
const WAIT = `
tell('ready')
while True: signal.sigtimedwait((), 0.05)
`;

/** The lock lines of every descriptor of a tree, without the numbers of blocks. */
function locksOf(root: number): string[] {
  return readTree(root).flatMap(({ pid }) =>
    readDescriptors(pid).flatMap(({ fd, info }) =>
      info.locks.map(({ kind, mode, type, pid: owner, start, end }) =>
        [pid, fd, kind, mode, type, owner, start, end].join(' '),
      ),
    ),
  );
}

interface Trip {
  readonly before?: RegExp;
  readonly between?: (subject: Subject, directory: string) => void;
  readonly after: (subject: Subject) => Promise<void> | void;
}

async function trip(code: string, { before = /ready/, between, after }: Trip): Promise<void> {
  using subject = Subject.python(PRELUDE + code);
  const members = readTree(subject.pid).map(({ pid }) => pid);
  try {
    await subject.expect(before);
    const directory = join(subject.directory, 'image');
    // Twice: what was restored can be saved again.
    for (const time of [1, 2]) {
      const locks = locksOf(subject.pid);
      rmSync(directory, { recursive: true, force: true });
      members.push(...readTree(subject.pid).map(({ pid }) => pid));
      dump({ ...CHECKPOINT, pid: subject.pid, directory });
      await untilGone(members);
      if (time === 1) between?.(subject, directory);
      restore({ ...RESTORE, directory });
      assert.deepEqual(locksOf(subject.pid), locks);
    }
    await after(subject);
  } finally {
    for (const pid of members) attempt('kill', [pid, 9]);
  }
}

test('flock, POSIX and OFD locks, shared, inherited, duplicated, of deleted files and directories', async () => {
  const code = `
a = make('flock'); fcntl.flock(a, fcntl.LOCK_EX); os.dup(a)
s1, s2 = make('shared'), make('shared'); fcntl.flock(s1, fcntl.LOCK_SH); fcntl.flock(s2, fcntl.LOCK_SH)
d = os.open(D, os.O_RDONLY); fcntl.flock(d, fcntl.LOCK_EX)
gone = make('gone'); os.write(gone, b'x' * 100); os.unlink('gone'); fcntl.flock(gone, fcntl.LOCK_EX); lock(gone, W, 10, 5)
p = make('posix'); lock(p, W, 0, 10); lock(p, R, 20, 0)
o1, o2 = make('ofd'), make('ofd')
lock(o1, W, 5, 10, OFD_SETLK); lock(o2, R, 100, 0, OFD_SETLK); lock(o1, R, 200, 1 << 60, OFD_SETLK)
def other():
  lock(p, R, 20, 5); q = make('posix'); lock(q, W, 12, 3)
  signal.signal(signal.SIGUSR1, lambda *_: check('child'))
  tell('child')
  while True: signal.sigtimedwait((), 0.05)
def check(who):
  type, _, start, length, pid = struct.unpack('hhqqi4x', lock(p, W, 0, 0, fcntl.F_GETLK))
  tell(who, type, start, length, pid == os.getppid())
c = child(other)
def report(*_): os.kill(c, signal.SIGUSR1)
signal.signal(signal.SIGUSR1, report)
${WAIT}`;
  await trip(code, {
    before: /child\n(.*\n)*ready|ready\n(.*\n)*child/,
    after: async (subject) => {
      subject.signal(10);
      await subject.expect(/child 1 0 10 True/);
    },
  });
});

test('who waits for a lock gets it after the restore', async () => {
  const code = `
held, file = make('held'), make('waited'); fcntl.flock(held, fcntl.LOCK_EX); lock(file, W, 0, 0)
def wait(name, ask):
  def body(): tell(name, 'waits'); ask(); tell(name, 'got it'); signal.pause()
  child(body)
wait('flock', lambda: fcntl.flock(make('held'), fcntl.LOCK_EX))
wait('posix', lambda: lock(make('waited'), R, 3, 1, fcntl.F_SETLKW))
wait('ofd', lambda: lock(make('waited'), W, 5, 1, 38))
def release(*_): fcntl.flock(held, fcntl.LOCK_UN); lock(file, U, 0, 0)
signal.signal(signal.SIGUSR1, release)
while len([l for l in open('/proc/locks') if '->' in l and str(os.fstat(held).st_ino) in l or '->' in l and str(os.fstat(file).st_ino) in l]) < 3: pass
${WAIT}`;
  await trip(code, {
    after: async (subject) => {
      assert.doesNotMatch(subject.output, /got it/);
      subject.signal(10);
      for (const name of ['flock', 'posix', 'ofd']) await subject.expect(new RegExp(`${name} got it`));
    },
  });
});

const LEASES = `
def lease(name, flags, type):
  os.close(make(name)); fd = os.open(name, flags); fcntl.fcntl(fd, fcntl.F_SETLEASE, type); return fd
def end(name, flags):
  try: os.open(name, flags | os.O_NONBLOCK); tell('not leased', name)
  except BlockingIOError: pass
def told(*_): tell('told')
signal.signal(signal.SIGIO, told)
`;

test('leases: held by one, by several, of a child, without an owner', async () => {
  const code = `${LEASES}
w = lease('write', os.O_RDWR, W); r1 = lease('read', os.O_RDONLY, R); r2 = os.open('read', os.O_RDONLY); fcntl.fcntl(r2, fcntl.F_SETLEASE, R)
n = lease('nobody', os.O_RDWR, W); fcntl.fcntl(n, fcntl.F_SETOWN, 0)
g = lease('gone', os.O_RDWR, W); os.write(g, b'ghost'); os.unlink('gone')
def other():
  c = lease('child', os.O_WRONLY, W); tell('child')
  while True: signal.sigtimedwait((), 0.05)
child(other)
def report(*_):
  tell('owners', [fcntl.fcntl(fd, fcntl.F_GETOWN) == os.getpid() for fd in (w, r1, n)], os.pread(g, 9, 0))
  end('write', os.O_RDONLY); end('nobody', os.O_RDONLY)
  tell('now', [fcntl.fcntl(fd, fcntl.F_GETLEASE) for fd in (w, r1, r2, n, g)])
signal.signal(signal.SIGUSR1, report)
while not any('child' in os.readlink('/proc/%s/fd/%s' % (p, f)) for p in os.listdir('/proc') if p.isdigit() and os.path.exists('/proc/%s/fd' % p) and int(p) > os.getpid() for f in ('3','4','5','6','7','8','9') if os.path.exists('/proc/%s/fd/%s' % (p, f))): pass
${WAIT}`;
  await trip(code, {
    before: /child\n(.*\n)*ready|ready\n(.*\n)*child/,
    after: async (subject) => {
      assert.doesNotMatch(subject.output, /told/);
      subject.signal(10);
      await subject.expect(/owners \[True, True, False\] b'ghost'/);
      await subject.expect(/now \[0, 0, 0, 0, 1\]/);
      await subject.expect(/told/);
      assert.doesNotMatch(subject.output, /not leased/);
    },
  });
});

test('leases that are being broken; nobody is told twice', async () => {
  const count = (subject: Subject) => subject.output.match(/told/g)?.length ?? 0;
  let told = -1;
  const code = `${LEASES}
w = lease('to-read', os.O_RDWR, W); u = lease('to-none', os.O_RDWR, W)
r1 = lease('read', os.O_RDONLY, R); r2 = os.open('read', os.O_RDONLY); fcntl.fcntl(r2, fcntl.F_SETLEASE, R)
end('to-read', os.O_RDONLY); end('to-none', os.O_WRONLY); end('read', os.O_WRONLY)
def report(*_):
  tell('types', [fcntl.fcntl(fd, fcntl.F_GETLEASE) for fd in (w, u, r1, r2)], [fcntl.fcntl(fd, fcntl.F_GETOWN) == os.getpid() for fd in (w, u, r1, r2)])
  fcntl.fcntl(w, fcntl.F_SETLEASE, R); os.close(os.open('to-read', os.O_RDONLY | os.O_NONBLOCK)); tell('shared')
signal.signal(signal.SIGUSR1, report)
${WAIT}`;
  await trip(code, {
    between: (subject) => {
      told = count(subject);
    },
    after: async (subject) => {
      subject.signal(10);
      await subject.expect(/types \[0, 2, 2, 2\] \[True, True, True, True\]/);
      await subject.expect(/shared/);
      assert.equal(count(subject), told);
    },
  });
});

const CONFLICTS: readonly (readonly [string, string, string, RegExp])[] = [
  [
    'flock',
    'fcntl.flock(f, fcntl.LOCK_EX)',
    'fcntl.flock(f, fcntl.LOCK_SH)',
    /write lock \(flock\).*pid \d+ \(python3\) holds a read lock \(FLOCK\)/,
  ],
  [
    'POSIX',
    'lock(f, W, 5, 10)',
    'lock(f, R, 14, 0)',
    /write lock \(POSIX\) on bytes 5 to 14.*pid \d+ \(python3\) holds a read lock \(POSIX\) on bytes 14 to the end/,
  ],
  [
    'OFD',
    'lock(f, R, 0, 0, OFD_SETLK)',
    'lock(f, W, 3, 1, OFD_SETLK)',
    /read lock \(OFD\) on all.*pid \d+ \(python3\) holds a write lock \(OFDLCK\)/,
  ],
  [
    'lease',
    'os.close(f); f = os.open("file", os.O_RDWR); fcntl.fcntl(f, fcntl.F_SETLEASE, W)',
    'pass',
    /write lease.*pid \d+ \(python3\) has it open/,
  ],
];

for (const [kind, ours, theirs, pattern] of CONFLICTS)
  test(`a conflict at restore names who is in the way: ${kind}`, async () => {
    await trip(`f = make('file'); ${ours}\n${WAIT}`, {
      between: (subject, directory) => {
        using rival = Subject.python(
          `${PRELUDE}f = os.open(${JSON.stringify(join(subject.directory, 'file'))}, os.O_RDWR)\n${theirs}\n${WAIT}`,
        );
        while (!rival.output.includes('ready')) execFileSync('sleep', ['0.01']);
        assert.throws(() => restore({ ...RESTORE, directory }), pattern);
        assert.ok(!subject.isAlive);
        rival.signal(9);
        while (rival.isAlive) execFileSync('sleep', ['0.01']);
      },
      after: () => undefined,
    });
  });

/** What only is mapped has no descriptor, and Python's mappings have one. */
const ONLY_MAPPED = `
import ctypes
def only_mapped(name, operation):
  fd = make(name); os.write(fd, b'x' * 5000)
  fcntl.flock(fd, operation); kept = mmap.mmap(fd, 4096)
  for other in range(fd, fd + 2): ctypes.CDLL(None).close(other)
  return kept
`;

test('locks that are held by nothing but a mapping', async () => {
  const isFree = (subject: Subject, name: string, way: string) =>
    spawnSync('flock', ['-n', way, join(subject.directory, name), 'true']).status === 0;
  await trip(
    `${ONLY_MAPPED}
e = only_mapped('exclusive', fcntl.LOCK_EX); s = only_mapped('shared', fcntl.LOCK_SH)
def give_up(*_):
  global e, s
  libc = ctypes.CDLL(None)
  at = [int(l.split('-')[0], 16) for l in open('/proc/self/maps') if l.rstrip().endswith(('/exclusive', '/shared'))]
  for address in at: libc.munmap(ctypes.c_void_p(address), 4096)
  tell('given up', len(at))
signal.signal(signal.SIGUSR1, give_up)
${WAIT}`,
    {
      after: async (subject) => {
        assert.deepEqual(
          ['exclusive', 'shared'].flatMap((name) => ['-s', '-x'].map((way) => isFree(subject, name, way))),
          [false, false, true, false],
        );
        subject.signal(10);
        await subject.expect(/given up 2/);
        assert.ok(isFree(subject, 'exclusive', '-x') && isFree(subject, 'shared', '-x'));
      },
    },
  );
});

test('what cannot be saved is refused by name', async () => {
  const code = `${LEASES}
w = lease('write', os.O_RDWR, W); os.write(w, b'x' * 5000); keep = mmap.mmap(w, 4096)
m = make('mapped'); os.write(m, b'x' * 5000); fcntl.flock(m, fcntl.LOCK_EX); kept = mmap.mmap(m, 4096, mmap.MAP_PRIVATE); os.close(m)
import ctypes
libc = ctypes.CDLL(None)
for fd in range(3, 20):
  if fd != w and os.path.exists('/proc/self/fd/%d' % fd): libc.close(fd)
tell('locks', [l for l in open('/proc/locks') if str(os.getpid()) in l])
${WAIT}`;
  using subject = Subject.python(PRELUDE + code);
  await subject.expect(/ready/);
  const refusals = refusalsOf(subject.pid, CHECKPOINT_CHECK(subject.pid)).map(
    ({ object, reason }) => `${object}: ${reason}`,
  );
  assert.match(refusals.join('\n'), /write.*holds a write lease, and the file is mapped too/);
  assert.match(refusals.join('\n'), /lock \(FLOCK\) of .*mapped: no descriptor .* mapped privately/);
  const without = refusalsOf(subject.pid, { ...CHECKPOINT_CHECK(subject.pid), fileLocks: false });
  assert.ok(without.some(({ help }) => help?.includes('--file-locks')));
});

const CHECKPOINT_CHECK = (pid: number) => ({ ...CHECKPOINT, pid, directory: '/nonexistent' });

const SQLITE = `
import sqlite3
# SQLite forbids to carry a connection across fork(2).
r, w = os.pipe()
def other():
  os.read(r, 1)
  mine = sqlite3.connect('db', isolation_level=None, timeout=0)
  def write(*_):
    try: mine.execute('INSERT INTO t VALUES (2)'); tell('written')
    except sqlite3.OperationalError as error: tell('child', error)
    tell('rows', mine.execute('SELECT count(*) FROM t').fetchone())
  signal.signal(signal.SIGUSR1, write); write(); tell('child ready')
  while True: signal.sigtimedwait((), 0.05)
c = child(other)
db = sqlite3.connect('db', isolation_level=None, timeout=0)
db.execute('PRAGMA journal_mode=MODE'); db.execute('CREATE TABLE t (x)')
db.execute('BEGIN IMMEDIATE'); db.execute('INSERT INTO t VALUES (1)')
os.write(w, b'x')
signal.signal(signal.SIGUSR1, lambda *_: os.kill(c, signal.SIGUSR1))
def commit(*_): db.execute('COMMIT'); os.kill(c, signal.SIGUSR1)
signal.signal(signal.SIGUSR2, commit)
${WAIT}`;

for (const mode of ['WAL', 'DELETE'])
  test(`SQLite in a transaction, journal mode ${mode}`, async () => {
    await trip(SQLITE.replace('MODE', mode), {
      before: /child ready\n(.*\n)*ready|ready\n(.*\n)*child ready/,
      after: async (subject) => {
        subject.signal(10);
        await subject.expect(/(rows \(0,\)[\s\S]*){2}/);
        assert.match(subject.output, /(child database is locked[\s\S]*){2}/);
        subject.signal(12);
        await subject.expect(/written\nrows \(2,\)/);
      },
    });
  });

test('a lock that is taken when the tree goes on is none of the image, and in nobody’s way', async () => {
  using subject = Subject.python(`${PRELUDE}
m = make('mapped'); os.write(m, b'x' * 5000); kept = mmap.mmap(m, 4096)
for fd in range(3, 20):
  if fd != m and os.path.exists('/proc/self/fd/%d' % fd): os.close(fd)
signal.signal(signal.SIGUSR1, lambda *_: (fcntl.flock(m, fcntl.LOCK_EX), os.close(m)))
${WAIT}`);
  await subject.expect(/ready/);
  const has = () => readDescriptors(subject.pid).some(({ link }) => link.endsWith('/mapped'));
  assert.ok(has());
  const phase = (name: string): void => {
    if (name !== 'write') return;
    subject.signal(10);
    while (has());
  };
  const directory = join(subject.directory, 'image');
  dump({ ...CHECKPOINT, pid: subject.pid, directory, afterwards: 'run', hooks: { phase } });
});
