import test from 'node:test';
import { goesOnAndComesBack, inPidNamespace, roundTrip } from '../memory/testing/trial.js';
import { URING } from './testing/uring.js';

if (inPidNamespace(import.meta.url)) {
  test('rings that are fresh, have gone round, and hold unread completions and unsubmitted entries', async () => {
    await roundTrip({
      build: `${URING}
fresh = Ring(8)
used = Ring(4, cq=32); used.many(1003); reads(used, 5)
for i in range(3): used.put(READ, fd, at, 2, i, 100 + i)
used.enter(3, 3)
used.put(READ, fd, at, 3, 1, 200); used.put(READ, fd, at, 4, 2, 201)
one = Ring(1); one.many(77)
big = Ring(4096); big.many(10000)
# As programs map the rings that do not know that both are one.
cq = ok(libc.mmap(None, 2 * PAGE, R, SHARED, used.fd, 0x8000000))
rings = (fresh, used, one, big)
before = [r.words() for r in rings]`,
      check: `
assert [r.words() for r in rings] == before, (before, [r.words() for r in rings])
assert get(cq, 100) == get(used.ring, 100)
assert used.take() == [(100, 2), (101, 2), (102, 2)]
assert used.enter(2, 2) == 2 and used.take() == [(200, 3), (201, 4)]
for r in (fresh, used, one): works(r)
for i in range(20): reads(big, i)`,
      rounds: 2,
      anyContents: true,
    });
  });

  test('every flag that a ring can be rebuilt with', async () => {
    await roundTrip({
      build: `${URING}
sets = (SUBMIT_ALL, COOP, COOP|TASKFLAG, SQE128, CQE32, SQE128|CQE32, NO_SQARRAY, NO_SQARRAY|SQE128, MIXED)
rings = [Ring(8, f, 64) for f in sets]
for r in rings: r.many(101); r.many(13, SKIP); reads(r, 3)
for r in rings: r.put(READ, fd, at, 4, 2, 9); r.enter(1, 1)
silent = Ring(8); silent.many(500, SKIP)
sender = Ring(8)
told = Ring(8, 0, 16)
for i in range(300): sender.put(MSG, told.fd, 0, i, 1000 + i, 0, SKIP); sender.enter(1); told.take()
off = Ring(8, R_DISABLED); off.put(READ, fd, at, 4, 0, 7)
rings += [silent, sender, told, off]
before = [r.words() for r in rings]`,
      check: `
assert [r.words() for r in rings] == before, (before, [r.words() for r in rings])
for r in rings[:9]: assert r.take() == [(9, 4)]; works(r)
for r in (silent, sender, told): works(r)
sender.put(MSG, told.fd, 0, 5, 6, 0, SKIP); sender.enter(1); assert told.take() == [(6, 5)]
# One that fails does not keep the others back.
a = rings[0]; a.put(200, tag=1); a.put(READ, fd, at, 4, 0, 2); assert a.enter(2) == 2
assert a.take() == [(1, -22), (2, 4)]
b = silent; b.put(200, tag=1); b.put(READ, fd, at, 4, 0, 2); assert b.enter(2) == 1
try: off.enter(1); assert False
except OSError as e: assert e.errno == 77
call(427, off.fd, 12, 0, 0); assert off.enter(1, 1) == 1 and off.take() == [(7, 4)]; works(off)`,
      rounds: 2,
      anyContents: true,
    });
  });

  test('registered files and eventfds, an epoll, a worker, and a ring that processes share', async () => {
    await roundTrip({
      build: `${URING}
import select, threading
def array(*numbers): return (ctypes.c_int32 * len(numbers))(*numbers)
ring = Ring(8); other = Ring(4)
deleted = os.open(name + '2', os.O_RDWR|os.O_CREAT); os.write(deleted, b'deleted'); os.unlink(name + '2')
call(427, ring.fd, 2, array(-1, fd, deleted, -1, -1), 5)
call(427, ring.fd, 25, (ctypes.c_uint32 * 4)(3, 1, 0, 0), 0)
event = os.eventfd(5); call(427, ring.fd, 4, array(event), 1)
quiet = os.eventfd(0, os.EFD_NONBLOCK); call(427, other.fd, 7, array(quiet), 1)
call(427, other.fd, 29, (ctypes.c_uint32 * 4)(7, 0, 0, 0), 0)
epoll = select.epoll(); epoll.register(ring.fd, select.EPOLLIN)
ring.many(50); assert os.eventfd_read(event) > 5
# A thread of the kernel reads, waits for more to do, and is there while the ring is saved.
r, w = os.pipe()
ring.put(READ, r, at, 4, 0xffffffffffffffff, 1, ASYNC); ring.enter(1); os.write(w, b'word')
while u32(ring.head).value == u32(ring.tail).value: time.sleep(0.001)
assert ring.take() == [(1, 4)]; os.eventfd_read(event)
assert any(open('/proc/self/task/%s/comm' % t).read().startswith('iou-wrk') for t in os.listdir('/proc/self/task'))
go, gone = os.pipe()
child = os.fork()
if child == 0:
  os.read(go, 1); reads(ring, 4); reads(other, 4); os._exit(0)`,
      check: `
assert epoll.poll(0) == []
for index, want in ((1, b'0123'), (2, b'dele')):
  ring.put(READ, index, at, 4, 0, 5, FIXED); ring.enter(1, 1)
  assert epoll.poll(0) == [(ring.fd, 1)]
  assert ring.take() == [(5, 4)] and data.raw[:4] == want
for index in (0, 3):
  ring.put(READ, index, at, 4, 0, 5, FIXED); ring.enter(1, 1); assert ring.take() == [(5, -9)]
assert os.eventfd_read(event) == 4
# openat to a slot that the kernel chooses
path = ctypes.create_string_buffer(name.encode())
ring.put(18, -100, ctypes.addressof(path), 0, 0, 6); put(ring.sqes + (u32(ring.stail).value - 1) % ring.n * 64 + 44, struct.pack('<I', 0xffffffff))
ring.enter(1, 1); assert ring.take() == [(6, 3)], 'the slot'
ring.put(MSG, other.fd, 0, 3, 8, 0, SKIP); ring.enter(1); assert other.take() == [(8, 3)]
try: os.eventfd_read(quiet); assert False
except BlockingIOError: pass
os.write(gone, b'x'); assert os.waitpid(child, 0)[1] == 0
reads(ring, 1); reads(other, 1)`,
      anyContents: true,
    });
  });

  test('rings that one task alone may submit to, registered buffers, and numbers of rings', async () => {
    await roundTrip({
      build: `${URING}
def array(*numbers): return (ctypes.c_int32 * len(numbers))(*numbers)
def vectors(*pairs): return (ctypes.c_uint64 * (2 * len(pairs)))(*[n for pair in pairs for n in pair])
sets = (SINGLE, SINGLE|DEFER, SINGLE|DEFER|TASKFLAG, SINGLE|DEFER|CQE32|SQE128, SINGLE|DEFER|NO_SQARRAY, SINGLE|R_DISABLED)
rings = [Ring(8, f, 64) for f in sets]
off = rings.pop()
for r in rings: r.many(101); r.many(13, SKIP); reads(r, 3)
for r in rings: r.put(READ, fd, at, 4, 2, 9); r.enter(1, 1); r.put(READ, fd, at, 4, 3, 10)
event = os.eventfd(0); call(427, rings[1].fd, 4, array(event), 1); call(427, rings[1].fd, 2, array(-1, fd), 2)
plain = Ring(8)
room = new(5); put(room, bytes(range(256))); huge = new(600)
for r in (rings[0], rings[1], plain): call(427, r.fd, 0, vectors((room + 100, 3 * PAGE), (0, 0), (huge, 600 * PAGE)), 3)
def fixed(ring, index, to, offset=0, tag=5):
  ring.put(4, fd, to, 4, offset, tag); put(ring.sqes + (u32(ring.stail).value - 1) % ring.n * ring.step + 40, struct.pack('<H', index))
  ring.enter(1, 1); return ring.take()
assert fixed(plain, 0, room + 200) == [(5, 4)] and get(room + 200, 4) == b'0123'
def known(ring, index): call(427, ring.fd, 20, (ctypes.c_uint32 * 4)(index, 0, ring.fd, 0), 1)
known(plain, 3); known(rings[2], 0)
def numbered(ring, index):
  ring.put(READ, fd, at, 4, 0, 8); assert call(426, index, 1, 1, 17, 0, 0) == 1; assert ring.take() == [(8, 4)]
child = os.fork()
if child == 0: signal.pause()
before = [r.words() for r in rings + [off, plain]]`,
      check: `
assert [r.words() for r in rings + [off, plain]] == before, (before, [r.words() for r in rings + [off, plain]])
for r in rings:
  assert r.take() == [(9, 4)]; assert r.enter(1, 1) == 1; assert r.take() == [(10, 4)]; works(r)
assert os.eventfd_read(event) == 1 + 2 * 8 + 3
rings[1].put(READ, 1, at, 4, 0, 5, FIXED); rings[1].enter(1, 1); assert rings[1].take() == [(5, 4)]
for r in (plain, rings[0], rings[1]):
  put(room + 3000, b'----'); assert fixed(r, 0, room + 3000, 2) == [(5, 4)] and get(room + 3000, 4) == b'2345'
  assert fixed(r, 2, huge + 500 * PAGE, 1) == [(5, 4)] and get(huge + 500 * PAGE, 4) == b'1234'
  assert fixed(r, 1, room) == [(5, -14)] and fixed(r, 0, room + 5 * PAGE) == [(5, -14)]
numbered(plain, 3); numbered(rings[2], 0)
call(427, off.fd, 12, 0, 0); works(off)
if os.fork() == 0:
  try: rings[1].put(); rings[1].enter(1)
  except OSError as e: os._exit(e.errno)
assert os.wait()[1] == 17 << 8
os.kill(child, 9); os.wait()`,
      rounds: 2,
      anyContents: true,
    });
  });

  test('limits of workers', async () => {
    await roundTrip({
      build: `${URING}
def limits(ring, *now):
  both = (ctypes.c_uint32 * 2)(*(now or (0, 0))); call(427, ring.fd, 19, both, 2); return list(both)
ring = Ring(8); reads(ring, 1); limits(ring, 3, 5); assert limits(ring) == [3, 5]
alone = Ring(8, SINGLE|DEFER); limits(alone, 3, 5); reads(alone, 1)
asked = Ring(8); limits(asked)`,
      check: `
for r in (asked, ring, alone): works(r)
assert limits(ring) == [3, 5] and limits(alone) == [3, 5]`,
      rounds: 2,
      anyContents: true,
    });
  });

  test('a tree that goes on, and is restored from that image later', async () => {
    await goesOnAndComesBack(
      `${URING}
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
ring = Ring(8); ring.many(100); ring.put(READ, fd, at, 4, 1, 3); ring.enter(1, 1); ring.put(READ, fd, at, 4, 2, 4)
alone = Ring(8, SINGLE|DEFER); reads(alone, 2)`,
      'assert ring.take() == [(3, 4)]; ring.enter(1, 1); assert ring.take() == [(4, 4)]; works(ring); works(alone)',
    );
  });
}
