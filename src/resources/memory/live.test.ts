import { readFileSync } from 'node:fs';
import test from 'node:test';
import { inPidNamespace, roundTrip } from './testing/trial.js';

if (inPidNamespace(import.meta.url)) {
  test('private anonymous memory: written, never written, read-only, inaccessible, executable', async () => {
    await roundTrip({
      build: `
a = new(64); fill(a, 64, b'plain')
sparse = new(64); fill(sparse + 7 * PAGE, 1, b'one'); get(sparse + 9 * PAGE, 1)
ro = new(8); fill(ro, 8, b'ro'); ok(libc.mprotect(ro, 8 * PAGE, R))
none = new(8); fill(none, 8, b'none'); ok(libc.mprotect(none, 8 * PAGE, NONE))
part = new(8); fill(part, 8, b'part'); ok(libc.mprotect(part + 2 * PAGE, 2 * PAGE, NONE))
code = new(2, R|W|X); put(code, bytes([0xb8, 42, 0, 0, 0, 0xc3])); ok(libc.mprotect(code, 2 * PAGE, R|X))
reserved = new(16, NONE)`,
      check: `
filled(a, 64, b'plain'); filled(sparse + 7 * PAGE, 1, b'one'); filled(ro, 8, b'ro')
ok(libc.mprotect(none, 8 * PAGE, R)); filled(none, 8, b'none')
ok(libc.mprotect(part, 8 * PAGE, R)); filled(part, 8, b'part')
assert ctypes.CFUNCTYPE(ctypes.c_int)(code)() == 42`,
      rounds: 2,
    });
  });

  test('a sparse mapping of 100 GiB, reserved and not', async () => {
    await roundTrip({
      build: `
big = new(25 << 20, flags=PRIVATE|ANON|NORESERVE); fill(big + (77 << 30), 3, b'far')
none = new(25 << 20, NONE)
ok(libc.mprotect(none + (1 << 30), PAGE, R|W)); fill(none + (1 << 30), 1, b'island')`,
      check: `filled(big + (77 << 30), 3, b'far'); filled(none + (1 << 30), 1, b'island')`,
    });
  });

  test('private file mappings with changed pages, at an offset, read-only after a change, behind the end', async () => {
    await roundTrip({
      build: `
import tempfile
name = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), 'file')
f = open(name, 'w+b'); f.write(b''.join(b'file %d' % i + bytes(PAGE - len(b'file %d' % i)) for i in range(16))); f.flush()
p = new(16, fd=f.fileno(), flags=PRIVATE); fill(p + 3 * PAGE, 2, b'mine')
q = new(4, fd=f.fileno(), flags=PRIVATE, offset=8 * PAGE); put(q, b'changed'); ok(libc.mprotect(q, 4 * PAGE, R))
z = new(4, R|W, PRIVATE, os.open('/dev/zero', os.O_RDWR)); fill(z, 1, b'zero')
f.close()`,
      check: `
filled(p, 3, b'file'); filled(p + 3 * PAGE, 2, b'mine'); assert get(p + 5 * PAGE, 6) == b'file 5'
assert get(q, 7) == b'changed' and get(q + PAGE, 6) == b'file 9'; filled(z, 1, b'zero')`,
    });
  });

  test('shared mappings of a file, writable and not, and of one that was deleted', async () => {
    await roundTrip({
      build: `
name = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), 'file')
fd = os.open(name, os.O_RDWR|os.O_CREAT); os.truncate(name, 8 * PAGE)
w = new(8, fd=fd, flags=SHARED); fill(w, 8, b'shared'); os.close(fd)
fd = os.open(name, os.O_RDONLY); r = new(2, R, SHARED, fd, 4 * PAGE); os.close(fd)
gone = name + '2'; fd = os.open(gone, os.O_RDWR|os.O_CREAT); os.truncate(gone, 2 * PAGE)
g = new(2, fd=fd, flags=SHARED); fill(g, 2, b'gone'); os.unlink(gone); os.close(fd)`,
      check: `
filled(w, 8, b'shared'); put(w + 4 * PAGE, b'new'); assert get(r, 3) == b'new'
assert open(name, 'rb').read()[4 * PAGE:][:3] == b'new'; filled(g, 2, b'gone')`,
    });
  });

  test('shared anonymous memory: twice, in parts, in several processes, sparse', async () => {
    await roundTrip({
      build: `
s = new(16, flags=SHARED|ANON); fill(s, 4, b'shm')
big = new(1 << 18, flags=SHARED|ANON|NORESERVE); fill(big + (500 << 20), 1, b'far')
half = new(8, flags=SHARED|ANON); fill(half, 8, b'half'); ok(libc.munmap(half, 4 * PAGE))
r, w = os.pipe()
if os.fork() == 0:
  os.read(r, 1)
  put(s + 9 * PAGE, b'from child'); put(big + PAGE, b'too')
  os._exit(0)`,
      check: `
filled(s, 4, b'shm'); filled(big + (500 << 20), 1, b'far')
assert get(half + 4 * PAGE, 6) == b'half 4'
os.write(w, b'x'); os.wait()
assert get(s + 9 * PAGE, 10) == b'from child' and get(big + PAGE, 3) == b'too'`,
    });
  });

  test('memfds: shared and private mappings, a descriptor, seals, size, mode', async () => {
    await roundTrip({
      build: `
import fcntl
m = os.memfd_create('of mine', os.MFD_ALLOW_SEALING); os.truncate(m, 5 * PAGE + 10)
a = new(6, fd=m, flags=SHARED); fill(a, 5, b'memfd'); p = new(2, fd=m, flags=PRIVATE); put(p, b'private')
os.fchmod(m, 0o640)
sealed = os.memfd_create('sealed', os.MFD_ALLOW_SEALING); os.write(sealed, b'sealed' * 1000)
fcntl.fcntl(sealed, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE|fcntl.F_SEAL_SHRINK|fcntl.F_SEAL_GROW)
sm = new(1, R, SHARED, sealed)
later = os.memfd_create('later', os.MFD_ALLOW_SEALING); os.truncate(later, PAGE)
lm = new(1, R|W, SHARED, later); put(lm, b'later'); fcntl.fcntl(later, fcntl.F_ADD_SEALS, 0x10)
huge_sparse = os.memfd_create('sparse'); os.truncate(huge_sparse, 1 << 40); os.pwrite(huge_sparse, b'end', (1 << 40) - 3)
empty = os.memfd_create('empty')`,
      check: `
filled(a, 5, b'memfd'); assert get(p, 7) == b'private' and get(p + PAGE, 7) == b'memfd 1'
st = os.fstat(m); assert st.st_size == 5 * PAGE + 10 and st.st_mode & 0o777 == 0o640
put(a, b'seen'); assert os.pread(m, 4, 0) == b'seen'
assert fcntl.fcntl(sealed, fcntl.F_GET_SEALS) == fcntl.F_SEAL_WRITE|fcntl.F_SEAL_SHRINK|fcntl.F_SEAL_GROW
assert get(sm, 6) == b'sealed'
assert fcntl.fcntl(later, fcntl.F_GET_SEALS) == 0x10; put(lm, b'still')
assert os.pread(huge_sparse, 3, (1 << 40) - 3) == b'end' and os.fstat(huge_sparse).st_blocks == 8
assert os.fstat(empty).st_size == 0 and fcntl.fcntl(empty, fcntl.F_GET_SEALS) == 1`,
    });
  });

  test('System V segments of the host: attached twice, in part, read-only, removed', async () => {
    await roundTrip({
      build: `
id = ok(libc.shmget(0, 4 * PAGE + 100, 0o1600)); a = ok(libc.shmat(id, None, 0)); b = ok(libc.shmat(id, None, 0o10000))
fill(a, 5, b'sysv'); c = ok(libc.shmat(id, None, 0)); ok(libc.munmap(c, 2 * PAGE))
ok(libc.shmctl(id, 0, None))
kept = ok(libc.shmget(0, PAGE, 0o1600)); k = ok(libc.shmat(kept, None, 0)); put(k, b'kept')`,
      check: `
filled(a, 5, b'sysv'); put(a, b'both'); assert get(b, 4) == b'both'
assert get(c + 2 * PAGE, 6) == b'sysv 2'; assert get(k, 4) == b'kept'; ok(libc.shmctl(kept, 0, None))`,
    });
  });

  test('advice, locks, growing down, guards, names of libc', async () => {
    await roundTrip({
      build: `
for advice in (1, 2, 10, 14, 15, 16, 18): fill(new(4), 2, b'x'); ok(libc.madvise(new(4), 2 * PAGE, advice))
locked = new(4); fill(locked, 4, b'locked'); ok(libc.mlock(locked, 4 * PAGE))
ok(libc.mlock(new(2, NONE), 0)); nn = new(2); ok(libc.mlock(nn, 2 * PAGE)); ok(libc.mprotect(nn, 2 * PAGE, NONE))
down = new(4, flags=PRIVATE|ANON|GROWSDOWN|FIXED, at=0x100000000000)
fill(down, 4, b'down')
guard = new(8); fill(guard, 8, b'guard'); guarded = libc.madvise(guard + 2 * PAGE, 3 * PAGE, 102)`,
      check: `
filled(locked, 4, b'locked'); filled(down, 4, b'down'); filled(guard, 2, b'guard')
put(down - 3 * PAGE, b'grown')
if guarded == 0:
  if os.fork() == 0: get(guard + 2 * PAGE, 1); os._exit(0)
  assert os.wait()[1] & 127 == 11, 'a guard page must kill'`,
    });
  });

  test('the bounds of a program: brk, arguments, environment, auxiliary vector, executable', async () => {
    await roundTrip({
      build: `
def facts():
  return [open('/proc/self/' + f, 'rb').read() for f in ('cmdline', 'environ', 'auxv')] + [os.readlink('/proc/self/exe'), libc.prctl(3, 0, 0, 0, 0), libc.prctl(42, 0, 0, 0, 0), open('/proc/self/stat').read().split(')')[1].split()[42:49]]
libc.sbrk.restype = ctypes.c_void_p
libc.sbrk(100); libc.prctl(4, 0, 0, 0, 0); libc.prctl(41, 1, 0, 0, 0)
known = facts(); top = libc.sbrk(0)`,
      check: `
assert facts() == known, (facts(), known)
assert libc.sbrk(0) == top; libc.sbrk(8192)`,
    });
  });

  const free = Number(/^HugePages_Free:\s+(\d+)$/m.exec(readFileSync('/proc/meminfo', 'latin1'))?.[1] ?? 0);

  test('huge pages: private, shared anonymous, memfd', {
    skip: free < 8 && 'needs 8 free huge pages',
  }, async () => {
    await roundTrip({
      build: `
HUGE = 512
p = new(2 * HUGE, flags=PRIVATE|ANON|HUGETLB); fill(p, 3, b'private')
s = new(HUGE, flags=SHARED|ANON|HUGETLB); fill(s + 500 * PAGE, 12, b'shared')
m = os.memfd_create('huge', 4); os.truncate(m, 2 << 20); f = new(HUGE, flags=SHARED, fd=m); fill(f, 2, b'memfd')
ro = new(HUGE, flags=PRIVATE|ANON|HUGETLB); fill(ro, 1, b'ro'); ok(libc.mprotect(ro, HUGE * PAGE, R))`,
      check: `
filled(p, 3, b'private'); filled(s + 500 * PAGE, 12, b'shared'); filled(f, 2, b'memfd'); filled(ro, 1, b'ro')
fill(p + HUGE * PAGE, 1, b'more')`,
    });
  });

  test('sealed mappings stay sealed', async () => {
    await roundTrip({
      build: `
s = new(4); fill(s, 4, b'sealed'); ok(libc.mprotect(s, 4 * PAGE, R)); sealed = libc.syscall(462, ctypes.c_void_p(s), ctypes.c_size_t(4 * PAGE), 0)`,
      check: `
filled(s, 4, b'sealed')
assert sealed != 0 or libc.munmap(s, 4 * PAGE) == -1 and ctypes.get_errno() == 1`,
      rounds: 2,
    });
  });

  test('droppable memory is there, and may be empty', async () => {
    await roundTrip({
      build: `
try: d = new(4, flags=8|ANON)
except OSError: d = None`,
      check: `
if d: put(d, b'x')`,
    });
  });

  test('threads, whose stacks lie in mappings with a guard below', async () => {
    await roundTrip({
      build: `
import threading
data = {}
def run(n):
  data[n] = bytearray(b'%d' % n * 100000)
  go.wait(); data[n][0] += 1
go = threading.Event()
threads = [threading.Thread(target=run, args=(n,)) for n in range(5)]
for t in threads: t.start()
while len(data) < 5: pass`,
      check: `
go.set()
for t in threads: t.join()
assert all(data[n][0] == ord('%d' % n) + 1 for n in range(5))`,
      anyContents: true,
    });
  });
}
