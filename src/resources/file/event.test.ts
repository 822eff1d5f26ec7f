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

  test('namespaces', async () => {
    await roundTrip(`os.open('/proc/self/ns/net',os.O_RDONLY); os.open('/proc/self/ns/pid',os.O_RDONLY)`);
  });
}
