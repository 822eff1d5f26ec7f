import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { dump } from '../../engine/dump.js';
import { restore } from '../../engine/restore.js';
import { frameOf, readPagemap } from '../../kernel/procfs/pagemap.js';
import { checkpointOptions, gone, inPidNamespace, restoreRequest, started } from './testing/trial.js';

const PAGE = 4096n;
const NOTES = 'stasis-shared-pages.json';

/** For each page `1` when both processes have the same frame, `0` when not, `.` when one has none. */
function sharing(first: number, second: number, start: bigint, pages: number): string {
  const range = { start, end: start + BigInt(pages) * PAGE };
  const [a, b] = [readPagemap(first, range), readPagemap(second, range)];
  return [...a]
    .map((entry, index) => {
      const [mine, theirs] = [frameOf(entry), frameOf(b[index] ?? 0n)];
      if (mine === 0n || theirs === 0n) return '.';
      return mine === theirs ? '1' : '0';
    })
    .join('');
}

/** `fork` puts the code that follows into a child, which waits, checks by itself and exits. */
const FORK = `
def fork(work, check):
  pid = os.fork()
  if pid: return pid
  work()
  os.write(done, b'x')
  signal.sigwait({signal.SIGUSR1})
  try: check()
  except BaseException as error: print('child:', repr(error), flush=True); os._exit(1)
  os._exit(0)
ready_pipe, done = os.pipe()
def ended(pid):
  os.kill(pid, signal.SIGUSR1)
  assert os.waitpid(pid, 0)[1] == 0
`;

interface Shared {
  readonly build: string;
  readonly check: string;
  /** Python expression: the address to look at. */
  readonly at: string;
  readonly pages: number;
  readonly expected: string;
}

async function keepsSharing({ build, check, at, pages, expected }: Shared): Promise<void> {
  const setup = `${FORK}${build}\nos.read(ready_pipe, 1)\nprint('at', ${at}, child, flush=True)`;
  using subject = await started(setup, check);
  const [, address = '', child = ''] = await subject.expect(/at (\d+) (\d+)/);
  const directory = mkdtempSync(join(tmpdir(), 'stasis-cow-'));
  try {
    const look = () => sharing(subject.pid, Number(child), BigInt(address), pages);
    assert.equal(look(), expected, 'before');
    dump({ ...checkpointOptions(subject.pid, directory), afterwards: 'run' });
    assert.equal(look(), expected, 'a dump leaves them as they are');
    // With what the dump noted, and as CRIU's images are, without.
    for (const how of ['noted', 'compared']) {
      dump(checkpointOptions(subject.pid, directory));
      await gone(subject.pid);
      await gone(Number(child));
      assert.ok(existsSync(join(directory, NOTES)));
      if (how === 'compared') rmSync(join(directory, NOTES));
      restore(restoreRequest(directory));
      assert.equal(look(), expected, how);
    }
    assert.match(readFileSync(`/proc/${child}/stat`, 'utf8'), /python3/);
    subject.signal(10);
    await subject.expect(/checked/);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

if (inPidNamespace(import.meta.url)) {
  test('pages of a fork are shared, but for those that either wrote or gave up', async () => {
    await keepsSharing({
      build: `
a = new(10); fill(a, 8, b'both')
def work(): put(a + PAGE, b'child'); put(a + 9 * PAGE, b'only'); ok(libc.madvise(a + 5 * PAGE, PAGE, 4))
def check():
  filled(a, 1, b'both'); assert get(a + PAGE, 5) == b'child' and get(a + 2 * PAGE, 6) == b'both 2'
  assert get(a + 5 * PAGE, 6) == bytes(6) and get(a + 9 * PAGE, 4) == b'only' and get(a + 3 * PAGE, 6) == b'both 3'
child = fork(work, check)
put(a + 3 * PAGE, b'parent')`,
      check: `
assert get(a + 3 * PAGE, 6) == b'parent' and get(a + 9 * PAGE, 4) == bytes(4); put(a, b'late')
ended(child)`,
      at: 'a',
      pages: 10,
      expected: '10101.11..',
    });
  });

  test('mappings that changed since the fork: split, protected, cut, grown, moved away', async () => {
    await keepsSharing({
      build: `
whole = new(16); libc.munmap(whole, 16 * PAGE)
whole = new(8, flags=PRIVATE|ANON|FIXED, at=whole); fill(whole, 8, b'w')
def work():
  ok(libc.mprotect(whole + PAGE, PAGE, R)); ok(libc.munmap(whole + 3 * PAGE, PAGE))
  ok(libc.mprotect(whole + 4 * PAGE, PAGE, NONE))
  ok(libc.mremap(whole + 5 * PAGE, 3 * PAGE, 8 * PAGE, 0)); fill(whole + 8 * PAGE, 5, b'new')
def check():
  filled(whole, 3, b'w'); assert get(whole + 7 * PAGE, 3) == b'w 7'; filled(whole + 8 * PAGE, 5, b'new')
  ok(libc.mprotect(whole + 4 * PAGE, PAGE, R)); assert get(whole + 4 * PAGE, 3) == b'w 4'
child = fork(work, check)`,
      check: `filled(whole, 8, b'w'); ended(child)`,
      at: 'whole',
      pages: 8,
      expected: '111.1111',
    });
  });

  test('changed pages of a private file mapping', async () => {
    await keepsSharing({
      build: `
name = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), 'file'); open(name, 'wb').write(b'f' * PAGE * 4)
fd = os.open(name, os.O_RDONLY); f = new(4, fd=fd, flags=PRIVATE); os.close(fd); put(f, b'early'); put(f + 2 * PAGE, b'early'); put(f + 3 * PAGE, b'early')
def work(): put(f + 2 * PAGE, b'child'); ok(libc.madvise(f, PAGE, 4)); get(f, 1)
def check(): assert get(f, 5) == b'fffff' and get(f + 2 * PAGE, 5) == b'child' and get(f + PAGE, 2) == b'ff'
child = fork(work, check); get(f + PAGE, 1)`,
      check: `assert get(f, 5) == b'early' and get(f + 2 * PAGE, 5) == b'early'; ended(child)`,
      at: 'f + 2 * PAGE',
      pages: 2,
      expected: '01',
    });
  });

  test('what fork treats in a way of its own: DONTFORK, WIPEONFORK', async () => {
    await keepsSharing({
      build: `
a = new(1); fill(a, 1, b'a'); d = new(2); fill(d, 2, b'dont'); ok(libc.madvise(d, 2 * PAGE, 10))
w = new(2); fill(w, 2, b'wipe'); ok(libc.madvise(w, 2 * PAGE, 18))
def check():
  assert get(w, 4) == bytes(4)
  assert not any(int(l.split('-')[0], 16) <= d < int(l.split('-')[1].split()[0], 16) for l in open('/proc/self/maps'))
child = fork(lambda: None, check)`,
      check: `filled(d, 2, b'dont'); filled(w, 2, b'wipe'); ended(child)`,
      at: 'a',
      pages: 1,
      expected: '1',
    });
  });

  test('a grandchild shares with its grandparent', async () => {
    await keepsSharing({
      build: `
a = new(4); fill(a, 4, b'old')
r, w = os.pipe()
middle = os.fork()
if middle == 0:
  put(a + PAGE, b'middle')
  grand = os.fork()
  if grand == 0:
    put(a + 2 * PAGE, b'grand'); os.write(done, b'x'); signal.sigwait({signal.SIGUSR1}); filled(a, 1, b'old')
    assert get(a + PAGE, 6) == b'middle' and get(a + 2 * PAGE, 5) == b'grand' and get(a + 3 * PAGE, 5) == b'old 3'
    os._exit(0)
  os.write(w, b'%d ' % grand)
  signal.sigwait({signal.SIGUSR1}); ended(grand); os._exit(0)
child = int(os.read(r, 10))`,
      check: `ended(middle)`,
      at: 'a',
      pages: 4,
      expected: '1001',
    });
  });
}
