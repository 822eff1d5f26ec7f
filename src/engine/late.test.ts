import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { readTree } from '../kernel/procfs/tree.js';
import { attempt } from '../kernel/syscall.js';
import { CHECKPOINT, RESTORE } from '../testing/options.js';
import { Subject } from '../testing/subject.js';
import { dump } from './dump.js';
import { restore } from './restore.js';

/**
 * Files that can be opened only when descriptors and threads are there, and targets of an epoll whose descriptions are
 * open nowhere but in a socket's queue.
 */
const PROGRAM = `
import ctypes, os, select, signal, socket, struct, threading
libc = ctypes.CDLL(None, use_errno=True)
def ok(r):
  if r < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
  return r
started = threading.Event(); tids = []; hold = threading.Event()
def work(): tids.append(threading.get_native_id()); started.set(); hold.wait()
threading.Thread(target=work, daemon=True).start(); started.wait()
tid = tids[0]
thread = ok(libc.syscall(434, tid, 0o200)); leader = ok(libc.syscall(434, os.getpid(), 0o200))
status = os.open('/proc/self/task/%d/comm' % tid, os.O_RDONLY)
event = os.eventfd(0); watched = os.eventfd(0)
info = os.open('/proc/self/fdinfo/%d' % watched, os.O_RDONLY)
epoll = select.epoll(); epoll.register(event, select.EPOLLIN); epoll.register(watched, select.EPOLLIN)
a, b = socket.socketpair()
a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack('i', event))]); os.close(event)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
pid_of = lambda fd: [line for line in open('/proc/self/fdinfo/%d' % fd) if line.startswith('Pid:')][0].split()[1]
n = 0
while True:
  n += 1
  assert [pid_of(thread), pid_of(leader)] == [str(tid), str(os.getpid())], 'pidfds'
  assert b'eventfd-count' in os.pread(info, 4096, 0), 'fdinfo'
  assert os.pread(status, 64, 0).strip() == open('/proc/self/task/%d/comm' % tid, 'rb').read().strip(), 'comm'
  assert epoll.poll(0) == [], 'nothing is ready'
  if n > 1:
    _, [(_, _, data)], _, _ = b.recvmsg(1, 1024)
    event, = struct.unpack('i', data[:4])
    os.eventfd_write(event, 1); assert len(epoll.poll(1)) == 1, 'ready'; os.eventfd_read(event)
    a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack('i', event))]); os.close(event)
  os.write(1, b'beat %d\\n' % n)
  signal.sigwait([signal.SIGUSR1])
`;

test('what waits for tables, threads and what is in flight', async () => {
  using subject = Subject.python(PROGRAM);
  await subject.expect(/^beat 1$/m);
  for (const round of [2, 3]) {
    const directory = join(subject.directory, `image-${round}`);
    const pids = readTree(subject.pid).map(({ pid }) => pid);
    dump({ ...CHECKPOINT, pid: subject.pid, directory });
    const WNOHANG = 1;
    while (attempt('kill', [subject.pid, 0]) === 0) attempt('wait4', [subject.pid, 0, WNOHANG, 0]);
    assert.equal(pids.length, 1);
    restore({ ...RESTORE, directory });
    subject.signal(10);
    const said = await subject.expect(new RegExp(`^beat ${round}$|Error.*`, 'm'));
    assert.equal(said[0], `beat ${round}`);
  }
});
