import assert from 'node:assert/strict';
import test from 'node:test';
import { readFdinfo } from '../../kernel/procfs/fdinfo.js';
import { inNamespace, readThrough, roundTrip } from '../../testing/descriptors.js';

if (inNamespace(import.meta.url)) {
  const CTYPES = 'import ctypes\nlibc=ctypes.CDLL(None,use_errno=True)\n';
  const number = (bytes: Buffer): bigint => bytes.readBigUInt64LE();

  test('eventfd: counter, also above 32 bits, and semaphore mode', async () => {
    await roundTrip(
      `${CTYPES}libc.eventfd(7,0o4000); libc.eventfd(3,1); big=libc.eventfd(0,0); os.write(big,(1<<40).to_bytes(8,'little'))`,
      ({ pid }, restored) => {
        const { tid } = restored.of(pid);
        assert.equal(number(readThrough(tid, 3, 8)), 7n);
        assert.equal(number(readThrough(tid, 4, 8)), 1n);
        assert.equal(readFdinfo(tid, 4).eventfd?.count, 2n);
        assert.equal(number(readThrough(tid, 5, 8)), 1n << 40n);
      },
    );
  });

  test('timerfd: time left, interval, and ticks of a timer that stands expired', async () => {
    await roundTrip(
      `${CTYPES}import struct,time
def timer(v,i):
  t=libc.timerfd_create(1,0)
  libc.timerfd_settime(t,0,struct.pack('qqqq',i,0,int(v),int(v%1*1e9)),None)
  return t
timer(1000,7); timer(0,0); e=timer(0.000001,1000)
select.select([e],[],[])`,
      ({ pid }, restored) => {
        const { tid } = restored.of(pid);
        const timer = readFdinfo(tid, 3).timerfd;
        assert.ok(timer !== undefined && timer.value.sec > 900n && timer.value.sec < 1000n);
        assert.equal(timer.interval.sec, 7n);
        assert.equal(readFdinfo(tid, 4).timerfd?.value.sec, 0n);
        assert.equal(number(readThrough(tid, 5, 8)), 1n);
        assert.ok((readFdinfo(tid, 5).timerfd?.value.sec ?? 0n) > 900n, 'set again by the read');
      },
    );
  });

  test('signalfd: mask', async () => {
    await roundTrip(
      `${CTYPES}m=(ctypes.c_ulong*16)(0x8001); libc.signalfd(-1,m,0o2004000)`,
      ({ pid }, restored) => {
        assert.equal(readFdinfo(restored.of(pid).tid, 3).sigmask, 0x8001n);
      },
    );
  });

  test('epoll: targets, nested, moved and reused numbers, and what is ready', async () => {
    await roundTrip(
      `r,w=os.pipe(); e=select.epoll(); e.register(r,select.EPOLLIN); outer=select.epoll(); outer.register(e.fileno(),select.EPOLLIN|select.EPOLLET)
a=os.eventfd(0) if hasattr(os,'eventfd') else os.pipe()[0]
os.dup2(a,200); e.register(200,select.EPOLLIN); os.close(200)
os.dup2(a,70); e.register(70,select.EPOLLOUT|select.EPOLLONESHOT); os.dup2(w,70)
os.write(w,b'x')`,
      ({ pid }, restored) => {
        const { tid } = restored.of(pid);
        const targets = (of: number, fd: number) =>
          readFdinfo(of, fd)
            .epoll.map(({ tfd, events, data }) => `${tfd} ${events.toString(16)} ${data}`)
            .sort();
        assert.equal(targets(pid, 5).length, 3);
        assert.deepEqual(targets(tid, 5), targets(pid, 5));
        assert.deepEqual(targets(tid, 6), targets(pid, 6));
      },
    );
  });

  test('epoll: one-shot targets that have told their event, exclusive ones, a signalfd of the process', async () => {
    await roundTrip(
      `${CTYPES}e=select.epoll()
r,w=os.pipe(); x=os.dup(w); os.write(w,b'x')
q,v=os.pipe(); one=select.EPOLLONESHOT
for fd,m in (r,select.EPOLLIN),(w,select.EPOLLOUT): e.register(fd,m|one)
while e.poll(0): pass
e.register(q,select.EPOLLIN|select.EPOLLEXCLUSIVE)
e.register(v,select.EPOLLOUT|select.EPOLLET)
e.register(x,select.EPOLLPRI|one)`,
      ({ pid }, restored) => {
        const { tid } = restored.of(pid);
        const targets = (of: number) =>
          readFdinfo(of, 3)
            .epoll.map(({ tfd, events }) => `${tfd} ${events.toString(16)}`)
            .sort();
        assert.ok(targets(pid).includes('4 40000000') && targets(pid).includes('5 40000000'));
        assert.deepEqual(targets(tid), targets(pid));
      },
    );
  });

  test('epoll: a thousand eventfds, most of them moved since', async () => {
    await roundTrip(
      `${CTYPES}e=select.epoll(); import resource; resource.setrlimit(resource.RLIMIT_NOFILE,(4096,4096))
fds=[libc.eventfd(n,0) for n in range(1000)]
for fd in fds: e.register(fd,select.EPOLLIN)
for fd in fds[::2]: os.dup2(fd,fd+2000); os.close(fd)`,
      ({ pid }, restored) => {
        const { tid } = restored.of(pid);
        const targets = (of: number) =>
          readFdinfo(of, 3)
            .epoll.map(({ tfd }) => tfd)
            .sort((a, b) => a - b);
        assert.equal(targets(pid).length, 1000);
        assert.deepEqual(targets(tid), targets(pid));
      },
    );
  });

  test('timerfd: clocks that wake a machine, cancelled by a set clock, stopped with an interval, many ticks', async () => {
    await roundTrip(
      `${CTYPES}import struct,time
def timer(clock,flags,v,i):
  t=libc.timerfd_create(clock,0); assert t>=0
  assert libc.timerfd_settime(t,flags,struct.pack('qqqq',i,0,int(v),int(v%1*1e9)),None)==0
  return t
timer(8,0,1000,0); timer(9,0,1000,5); timer(0,3,time.time()+500,0); timer(1,0,0,7); timer(7,1,1e9,3)
t=timer(1,0,0.001,0)
m=timer(1,0,0.0001,0); libc.timerfd_settime(m,0,struct.pack('qqqq',0,1000,0,1),None); time.sleep(0.02)`,
      ({ pid }, restored) => {
        const { tid } = restored.of(pid);
        const timer = (of: number, fd: number) => readFdinfo(of, fd).timerfd;
        for (const fd of [3, 4, 5, 6, 7]) {
          const [was, is] = [timer(pid, fd), timer(tid, fd)];
          assert.ok(was !== undefined && is !== undefined);
          assert.equal(is.clockid, was.clockid);
          assert.deepEqual(is.interval, was.interval);
          assert.ok(was.value.sec - is.value.sec <= 5n && is.value.sec - was.value.sec <= 5n, `${fd}`);
        }
        assert.equal(timer(tid, 5)?.settimeFlags, 3);
        assert.deepEqual(timer(tid, 6)?.value, { sec: 0n, nsec: 0n });
        assert.equal(number(readThrough(tid, 8, 8)), 1n);
        assert.ok(number(readThrough(tid, 9, 8)) > 10n);
      },
    );
  });

  test('namespaces', async () => {
    await roundTrip(`os.open('/proc/self/ns/net',os.O_RDONLY); os.open('/proc/self/ns/pid',os.O_RDONLY)`);
  });
}
