import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { dump } from '../../engine/dump.js';
import { restore } from '../../engine/restore.js';
import {
  checkpointOptions,
  goesOnAndComesBack,
  gone,
  inPidNamespace,
  restoreRequest,
  roundTrip,
  withImage,
} from '../memory/testing/trial.js';
import { URING } from './testing/uring.js';

/** Everything that waits: each `end` makes its operation complete, once. */
const OPERATIONS = `
import socket
RECV, SEND, ACCEPT, READV, RECVMSG, POLLIN = 27, 26, 13, 1, 10, 1
room = [new(1) for _ in range(16)]
def one(ring, *want):
  while u32(ring.tail).value - u32(ring.head).value < len(want): ring.enter(0, 1)
  got = ring.take(); assert got == list(want), (got, want)
def look(ring): call(426, ring.fd, 0, 0, 1, 0, 0); return ring.take()
def none(ring): got = look(ring); assert got == [], got
`;

if (inPidNamespace(import.meta.url)) {
  test('reads, receives and polls that wait complete once, with what comes after the restore', async () => {
    await roundTrip({
      build: `${URING}${OPERATIONS}
ring = Ring(8); ring.many(13)
a, b = socket.socketpair(); r, w = os.pipe(); e = os.eventfd(0)
ring.put(RECV, a.fileno(), room[0], 100, tag=0x1234567890abcdef); ring.put(READ, r, room[1], 4, 2**64-1, 2)
ring.put(READ, e, room[2], 8, 0, 3); ring.put(POLL, r, tag=4, op_flags=POLLIN)
assert ring.enter(4) == 4
ring.put(READ, fd, at, 2, 1, 77)
before = ring.words()`,
      check: `
assert ring.words() == before, (before, ring.words())
assert ring.enter(1, 1) == 1; one(ring, (77, 2)); none(ring)
b.send(b'hello'); one(ring, (0x1234567890abcdef, 5)); assert get(room[0], 5) == b'hello'
os.eventfd_write(e, 7); one(ring, (3, 8)); assert get(room[2], 8) == b'\\7' + bytes(7)
os.write(w, b'four'); os.write(w, b'more')
got = [] 
while len(got) < 2: ring.enter(0, 1); got += ring.take()
assert sorted(got) == [(2, 4), (4, 1)], got
assert get(room[1], 4) == b'four' and os.read(r, 9) == b'more'
none(ring); works(ring)`,
      rounds: 2,
      anyContents: true,
    });
  });

  test('accepts of unix and TCP listeners, also those that accept again and again, and polls that do', async () => {
    await roundTrip({
      build: `${URING}${OPERATIONS}
ring = Ring(16); ring.many(5)
unix = socket.socket(socket.AF_UNIX); unix.bind('\\0uring-test'); unix.listen()
many = socket.socket(socket.AF_UNIX); many.bind('\\0uring-many'); many.listen()
tcp = socket.socket(); tcp.bind(('127.0.0.1', 0)); tcp.listen()
length = room[1]; put(length, struct.pack('<I', 16)); e = os.eventfd(0)
ring.put(ACCEPT, unix.fileno(), tag=1, op_flags=socket.SOCK_CLOEXEC)
ring.put(ACCEPT, many.fileno(), tag=2, ioprio=1)
ring.put(ACCEPT, tcp.fileno(), at=room[0], off=length, tag=3)
ring.put(POLL, e, length=1, op_flags=POLLIN, tag=4)
ring.put(POLL, e, length=1, op_flags=POLLIN|2, tag=5)
assert ring.enter(5) == 5`,
      check: `
def client(listener):
  c = socket.socket(listener.family); c.connect(listener.getsockname()); return c
def accepted(tag, listener, more):
  c = client(listener); ring.enter(0, 1)
  (head, tail) = (u32(ring.head).value, u32(ring.tail).value); assert tail - head == 1, (tag, head, tail, ring.take())
  got, res, flags = struct.unpack('<QiI', get(ring.cqes + head % ring.cn * 16, 16)); ring.take()
  assert got == tag and res >= 0 and bool(flags & 2) == more, (got, res, flags)
  s = socket.socket(fileno=res); c.send(b'hi'); assert s.recv(9) == b'hi' and os.get_inheritable(res) == (tag != 1)
accepted(1, unix, False)
accepted(2, many, True); accepted(2, many, True)
accepted(3, tcp, False); assert get(room[0], 2) == struct.pack('<H', 2) and get(length, 4) == struct.pack('<I', 16)
c = client(unix); c = client(tcp); none(ring)
os.eventfd_write(e, 1)
ring.enter(0, 2); assert sorted(ring.take()) == [(4, 1), (5, 1)]
os.eventfd_read(e); os.eventfd_write(e, 1)
ring.enter(0, 2); assert sorted(ring.take()) == [(4, 1), (5, 1)]
os.eventfd_read(e); ring.enter(0); ring.take(); works(ring)`,
      rounds: 2,
      anyContents: true,
    });
  });

  test('a poll that goes on, whose file is ready, says so once more', async () => {
    await roundTrip({
      build: `${URING}${OPERATIONS}
ring = Ring(8); e = os.eventfd(1); ring.put(POLL, e, length=1, op_flags=POLLIN, tag=4); ring.enter(1); one(ring, (4, 1))`,
      check: 'one(ring, (4, 1)); none(ring); os.eventfd_read(e); os.eventfd_write(e, 1); one(ring, (4, 1))',
      anyContents: true,
    });
  });

  test('timeouts go on with what remains: relative, absolute, counting, repeated, of an operation', async () => {
    await roundTrip({
      build: `${URING}${OPERATIONS}
TIMEOUT, LINK_TIMEOUT, LINK, ABS, REALTIME, ETIME_OK, MULTI = 11, 15, 4, 1, 8, 32, 64
ring = Ring(16); ring.many(7); ETIME = -62
count = 0
def when(seconds):
  global count
  at = room[2] + 16 * count; count += 1
  put(at, struct.pack('<QQ', int(seconds), int(seconds % 1 * 1e9))); return at
def timeout(seconds, tag, op_flags=0, off=0): ring.put(TIMEOUT, at=when(seconds), length=1, off=off, tag=tag, op_flags=op_flags)
start = time.monotonic()
timeout(1.5, 1); timeout(start + 2, 2, ABS); timeout(time.time() + 2.5, 3, ABS|REALTIME); timeout(0.9, 4, MULTI, 3)
timeout(2**62, 5); timeout(3600, 6, 0, 4); timeout(3, 7, ETIME_OK)
a, b = socket.socketpair(); r, w = os.pipe()
ring.put(RECV, a.fileno(), room[0], 9, tag=8, flags=LINK); ring.put(LINK_TIMEOUT, at=when(3.5), length=1, tag=9)
ring.put(READ, r, room[1], 9, 2**64-1, 10, flags=LINK); ring.put(LINK_TIMEOUT, at=when(3600), length=1, tag=11)
assert ring.enter(11) == 11
# What the kernel has read already may change.
put(room[2], bytes(1024))`,
      check: `
got = {}
def until(*want):
  while not set(want) <= set(got):
    ring.enter(0, 1)
    for tag, res in ring.take(): got.setdefault(tag, []).append(res)
until(1, 2, 3, 4, 7, 8, 9)
while len(got[4]) < 3: ring.enter(0, 1); assert ring.take() == [(4, ETIME)]; got[4].append(ETIME)
assert got == {1: [ETIME], 2: [ETIME], 3: [ETIME], 4: [ETIME] * 3, 7: [ETIME], 8: [-125], 9: [ETIME]}, got
assert time.monotonic() - start >= 3.5
# Those of timeouts are not counted.
got.clear(); os.write(w, b'word'); until(6, 10, 11)
assert got == {6: [0], 10: [4], 11: [-125]} and get(room[1], 4) == b'word', got
none(ring)
ring.put(12, at=5, tag=12); ring.enter(1, 2); assert sorted(ring.take()) == [(5, -125), (12, 0)]`,
      anyContents: true,
    });
  });

  test('rings of one task alone, without arrays, with large entries; registered files and buffers; vectors and messages', async () => {
    await roundTrip({
      build: `${URING}${OPERATIONS}
def array(*numbers): return (ctypes.c_int32 * len(numbers))(*numbers)
sets = (SINGLE, SINGLE|DEFER|TASKFLAG, COOP|TASKFLAG, SQE128|CQE32, NO_SQARRAY, SINGLE|DEFER|NO_SQARRAY|SQE128, R_DISABLED|SINGLE)
rings = [Ring(4, f, 64) for f in sets]
call(427, rings[-1].fd, 12, 0, 0)
put(room[3], struct.pack('<QQQQ', room[4], 3, room[4] + 100, 5))
class Waiting: pass
every = []
for n, ring in enumerate(rings):
  ring.many(5 + n); x = Waiting(); x.ring = ring; every.append(x)
  x.a, x.b = socket.socketpair(); x.c, x.d = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); x.r, x.w = os.pipe(); x.room = new(4)
  call(427, ring.fd, 2, array(-1, x.a.fileno()), 2)
  call(427, ring.fd, 0, (ctypes.c_uint64 * 2)(x.room, 4 * PAGE), 1)
  header = x.room + 64; name = x.room + 128; control = x.room + 256
  put(header, struct.pack('<QIIQQQQI', 0, 0, 0, room[3], 2, control, 64, 0))
  # More than the ring has entries.
  ring.put(RECV, 1, room[5], 100, tag=1, flags=FIXED)
  ring.put(4, x.r, x.room + PAGE, 4, 2**64-1, tag=2)
  ring.put(RECVMSG, x.c.fileno(), header, 1, tag=3)
  assert ring.enter(3) == 3
  ring.put(READV, x.r, room[3], 2, 2**64-1, tag=4)
  for i in range(3): ring.put(POLL, x.w if i else x.r, tag=5 + i, op_flags=POLLIN)
  assert ring.enter(4) == 4; ring.put(READ, fd, at, 4, 2, 9)
before = [r.words() for r in rings]`,
      check: `
assert [r.words() for r in rings] == before, (before, [r.words() for r in rings])
def some(ring, *want):
  got = []
  while len(got) < len(want): ring.enter(0, 1); got += ring.take()
  assert sorted(got) == sorted(want), (got, want)
for x in every:
  ring = x.ring
  x.d.send(b'12345678'); some(ring, (3, 8)); assert get(room[4], 3) == b'123' and get(room[4] + 100, 5) == b'45678'
  x.b.send(b'to a fixed file'); some(ring, (1, 15)); assert get(room[5], 15) == b'to a fixed file'
  os.write(x.w, b'abcd1234'); 
  got = []
  while len(got) < 2: ring.enter(0, 1); got += ring.take()
  got.sort(); left = os.read(x.r, 9) if os.get_blocking(x.r) and len(got) == 2 and (4, 4) not in got and (4, 8) not in got else b''
  assert (5, 1) in got or (2, 4) in got, got
  os.write(x.w, b'abcdefghijklmnop')
  while len(got) < 3: ring.enter(0, 1); got += ring.take()
  assert sorted(t for t, _ in got) == [2, 4, 5], got
  assert ring.enter(1) == 1; some(ring, (9, 4))
  for d in (x.r,): os.close(d)
  some(ring, (6, 8), (7, 8))`,
      rounds: 2,
      anyContents: true,
    });
  });

  test('a thread that is not the first, more operations than a ring has entries, and sends that wait for room', async () => {
    await roundTrip({
      build: `${URING}${OPERATIONS}
import threading
small = Ring(2, cq=256); pairs = [socket.socketpair() for _ in range(50)]
for i, (a, b) in enumerate(pairs): small.put(RECV, a.fileno(), room[0] + 16 * i, 16, tag=i); assert small.enter(1) == 1
made, stay, go = threading.Event(), threading.Event(), os.pipe()
a, b = socket.socketpair(); result = []
def work():
  ring = Ring(8); ring.put(RECV, a.fileno(), room[1], 16, tag=7); ring.enter(1); made.set()
  ring.enter(0, 1); result.append(ring.take()); os.write(go[1], b'x'); stay.wait()
threading.Thread(target=work, daemon=True).start(); made.wait()
c, d = socket.socketpair(); c.setblocking(False); sent = 0
try:
  while True: sent += c.send(bytes(1000))
except BlockingIOError: pass
sender = Ring(8); put(room[2], b'the end'); sender.put(SEND, c.fileno(), room[2], 7, tag=1); assert sender.enter(1) == 1; none(sender)
e, f = socket.socketpair()
twice = Ring(8); twice.put(RECV, e.fileno(), room[3], 3, tag=1); twice.enter(1); twice.put(RECV, e.fileno(), room[4], 3, tag=2); twice.enter(1)`,
      check: `
for i, (a_, b_) in enumerate(pairs): b_.send(b'number %d' % i); one(small, (i, len(b'number %d' % i))); assert get(room[0] + 16 * i, 9).startswith(b'number %d' % i)
b.send(b'thread'); os.read(go[0], 1); assert result == [[(7, 6)]] and get(room[1], 6) == b'thread'
got = b''
while len(got) < sent + 7: got += d.recv(100000)
assert got == bytes(sent) + b'the end'; one(sender, (1, 7))
f.send(b'onetwo'); twice.enter(0, 2); assert sorted(twice.take()) == [(1, 3), (2, 3)]
print('order', get(room[3], 3), get(room[4], 3))`,
      rounds: 2,
      anyContents: true,
    });
  });

  test('a connection of TCP', async () => {
    await withImage(
      `${URING}${OPERATIONS}
ring = Ring(8); l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen()
c = socket.socket(); c.connect(l.getsockname()); s, _ = l.accept()
ring.put(RECV, s.fileno(), room[0], 100, tag=1); ring.put(READ, c.fileno(), room[1], 100, 0, 2); ring.put(POLL, s.fileno(), tag=3, op_flags=POLLIN)
assert ring.enter(3) == 3
late = Ring(8, SINGLE|DEFER); x = socket.socket(); x.connect(l.getsockname()); y, _ = l.accept(); x.setblocking(False); sent = 0
try:
  while True: sent += x.send(bytes(100000))
except BlockingIOError: pass
put(room[2], b'the end'); late.put(SEND, x.fileno(), room[2], 7, tag=4); assert late.enter(1) == 1; none(late)`,
      `
answer = b''
got = []
while len(answer) < sent + 7: answer += y.recv(1 << 20); got += look(late)
assert got == [(4, 7)], got
assert answer == bytes(sent) + b'the end'; none(late)
none(ring); c.send(b'ping'); ring.enter(0, 2); assert sorted(ring.take()) == [(1, 4), (3, 1)] and get(room[0], 4) == b'ping'
s.send(b'pong'); one(ring, (2, 4)); assert get(room[1], 4) == b'pong'; none(ring)`,
      async (subject, directory) => {
        const options = { ...checkpointOptions(subject.pid, directory), tcpEstablished: true };
        dump({ ...options, afterwards: 'run' });
        dump(options);
        await gone(subject.pid);
        restore(restoreRequest(directory));
        subject.signal(10);
        await subject.expect(/checked/);
      },
    );
  });

  test('what has arrived by TCP when the tree stands still is received once it is restored', async () => {
    const build = `${URING}${OPERATIONS}
import threading
signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.mkfifo(name + 'fifo')
l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen(); c = socket.socket(); c.connect(l.getsockname()); s, _ = l.accept(); l.close()
server = os.fork()
if server == 0:
  os.setsid(); c.close(); ring = Ring(8, SINGLE|DEFER|TASKFLAG)
  ring.put(RECV, s.fileno(), room[0], 100, tag=1); assert ring.enter(1) == 1; print('server %d.' % os.getpid(), flush=True)
  signal.sigwait({signal.SIGUSR1})
  one(ring, (1, 4)); assert get(room[0], 4) == b'ping'; none(ring); s.send(b'pong'); os._exit(0)
s.close()
def client():
  open(name + 'fifo').read(); c.send(b'ping'); open(name + 'sent', 'w'); print('got', c.recv(9), flush=True)
threading.Thread(target=client, daemon=True).start()`;
    await withImage(build, '', async (subject, directory) => {
      const [, server] = await subject.expect(/server (\d+)\./);
      const phase = (name: string) => {
        if (name !== 'borrow') return;
        writeFileSync(join(subject.directory, 'filefifo'), '');
        while (!existsSync(join(subject.directory, 'filesent')));
      };
      const options = { ...checkpointOptions(Number(server), directory), tcpEstablished: true };
      dump({ ...options, hooks: { phase } });
      await gone(Number(server));
      restore(restoreRequest(directory));
      process.kill(Number(server), 10);
      await subject.expect(/got b'pong'/);
    });
  });

  test('a tree that goes on keeps its own, which complete once, and what is restored of it later has the same', async () => {
    await goesOnAndComesBack(
      `${URING}${OPERATIONS}
ring = Ring(8); alone = Ring(8, SINGLE|DEFER); a, b = socket.socketpair(); c, d = socket.socketpair()
ring.put(RECV, a.fileno(), room[0], 100, tag=1); ring.enter(1)
alone.put(RECV, c.fileno(), room[1], 100, tag=2); alone.enter(1)`,
      `
none(ring); none(alone)
b.send(b'one'); one(ring, (1, 3)); assert get(room[0], 3) == b'one'; none(ring)
d.send(b'two'); one(alone, (2, 3)); assert get(room[1], 3) == b'two'; none(alone)`,
    );
  });

  test('what is ready when the tree stands still completes in the restored one', async () => {
    await withImage(
      `${URING}${OPERATIONS}
os.mkfifo(name + 'fifo'); r = os.open(name + 'fifo', os.O_RDWR)
rings = [Ring(8, f) for f in (0, COOP|TASKFLAG, SINGLE|DEFER, SINGLE|DEFER|TASKFLAG)]
for i, ring in enumerate(rings): ring.put(READ, r, room[i], 4, 2**64-1, 1); assert ring.enter(1) == 1`,
      `
got = []
for ring in rings: one(ring, (1, 4)); none(ring); got.append(get(room[rings.index(ring)], 4))
assert sorted(got) == [b'aaaa', b'bbbb', b'cccc', b'dddd'], got; [works(ring) for ring in rings]`,
      async (subject, directory) => {
        const phase = (name: string) => {
          if (name === 'borrow') writeFileSync(join(subject.directory, 'filefifo'), 'aaaabbbbccccdddd');
        };
        dump({ ...checkpointOptions(subject.pid, directory), hooks: { phase } });
        await gone(subject.pid);
        restore(restoreRequest(directory));
        subject.signal(10);
        await subject.expect(/checked/);
      },
    );
  });

  for (const [name, pair] of [
    ['unix', 'socket.socketpair()'],
    ['TCP', 'connected()'],
  ] as const)
    test(`a server of ${name} connections that are busy all the time loses nothing and says nothing twice`, async () => {
      await withImage(
        `${URING}${OPERATIONS}
import threading
listener = socket.socket(); listener.bind(('127.0.0.1', 0)); listener.listen()
def connected():
  c = socket.socket(); c.connect(listener.getsockname()); s, _ = listener.accept()
  for each in (c, s): each.setsockopt(6, 1, 1)
  return c, s
pairs = [${pair} for _ in range(8)]; stop, done = os.pipe(), os.pipe(); count = 0
if os.fork() == 0:
  # The server: it waits for all at once, and answers each.
  for c, _ in pairs: c.close()
  ring = Ring(8, SINGLE|DEFER); buffers = [new(1) for _ in pairs]
  def receive(i): ring.put(RECV, pairs[i][1].fileno(), buffers[i], 64, tag=i)
  for i in range(len(pairs)): receive(i)
  ring.enter(len(pairs))
  while True:
    ring.enter(u32(ring.stail).value - u32(ring.shead).value, 1)
    for tag, res in ring.take():
      if res <= 0: os._exit(0 if res == 0 else 1)
      pairs[tag][1].sendall(get(buffers[tag], res)); receive(tag)
for _, s in pairs: s.close()
def client():
  global count
  while not stopping:
    for i, (c, _) in enumerate(pairs): c.sendall(b'%d of %d' % (count, i))
    for i, (c, _) in enumerate(pairs):
      want = b'%d of %d' % (count, i); got = c.recv(64); assert got == want, (got, want)
    count += 1
stopping = False; thread = threading.Thread(target=client); thread.start()`,
        `
at_first = count
while count < at_first + 100: time.sleep(0.01)
stopping = True; thread.join(); [c.close() for c, _ in pairs]; assert os.wait()[1] == 0; assert count > 100`,
        async (subject, directory) => {
          for (let round = 0; round < 5; round++) {
            dump({ ...checkpointOptions(subject.pid, directory), tcpEstablished: true });
            await gone(subject.pid);
            restore(restoreRequest(directory));
          }
          subject.signal(10);
          await subject.expect(/checked/);
        },
      );
    });
}
