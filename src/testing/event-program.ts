import { Subject } from './subject.js';

/**
 * Event objects that look at each other: watches of a directory with a gap in their ids, pidfds of a child, a zombie and a
 * process that is gone, one-shot and level targets of an epoll, a timer, a signalfd, an asynchronous I/O context
 * with an event nobody took.
 */
const EVENTS = `
import ctypes, os, select, signal, struct, sys, time
def beat(n): os.write(1, b'beat %d\\n' % n)
def fail(*words): os.write(1, ('FAIL ' + ' '.join(map(str, words)) + chr(10)).encode())
def same(what, a, b):
  if a != b: fail(what, a, 'is not', b)
libc = ctypes.CDLL(None, use_errno=True)
def ok(r):
  if r < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
  return r
def call(*args): return ok(libc.syscall(*[ctypes.c_ulong(a) if isinstance(a, int) else a for a in args]))
os.chdir(os.path.dirname(os.path.abspath(sys.argv[0])))

os.mkdir('watched'); open('gone', 'w').close()
inotify = ok(libc.inotify_init1(0o2004000))
gone = ok(libc.inotify_add_watch(inotify, b'gone', 2)); watch = ok(libc.inotify_add_watch(inotify, b'watched', 0x100))
libc.inotify_rm_watch(inotify, gone); os.read(inotify, 4096)

child = os.fork()
if child == 0:
  while True: signal.pause()
zombie = os.fork()
if zombie == 0: os._exit(3)
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
reaped = os.fork()
if reaped == 0: os._exit(0)
pidfds = [call(434, pid, 0) for pid in (os.getpid(), child, zombie, reaped)]
os.waitpid(reaped, 0)

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
mask = struct.pack('Q', 1 << (signal.SIGUSR1 - 1))
signals = ok(libc.signalfd(-1, mask, 0o2004000))
timer = ok(libc.timerfd_create(1, 0o2004000)); libc.timerfd_settime(timer, 0, struct.pack('4q', 500, 0, 1000, 0), None)
r, w = os.pipe()
shot, level = os.pipe()[0], r
epoll = select.epoll()
for fd in (level, inotify, signals, timer): epoll.register(fd, select.EPOLLIN)
os.write(w, b'x'); os.read(r, 1)
once = os.eventfd(0) if hasattr(os, 'eventfd') else ok(libc.eventfd(0, 0o2004000))
epoll.register(once, select.EPOLLIN | select.EPOLLONESHOT)
os.write(once, struct.pack('Q', 1)); epoll.poll(1)
while any(fd == once for fd, _ in epoll.poll(0)): pass
outer = select.epoll(); outer.register(epoll.fileno(), select.EPOLLIN)

context = ctypes.c_ulong(0); call(206, 4, ctypes.byref(context))
data = ctypes.create_string_buffer(8)
iocb = ctypes.create_string_buffer(struct.pack('<QIiHhIQQqQII', 77, 0, 0, 0, 0, os.open('gone', os.O_RDONLY), ctypes.addressof(data), 1, 0, 0, 0, 0))
call(209, context.value, 1, ctypes.byref(ctypes.c_void_p(ctypes.addressof(iocb))))

def pid_of(fd): return [line for line in open('/proc/self/fdinfo/%d' % fd) if line.startswith('Pid:')][0].split()[1]
n = 1
while True:
  same('pids', [pid_of(fd) for fd in pidfds], [str(os.getpid()), str(child), str(zombie), '-1'])
  same('ready pidfds', {fd for fd, _ in select.epoll.poll((lambda e: ([e.register(fd, select.EPOLLIN) for fd in pidfds], e)[1])(select.epoll()), 0)}, set(pidfds[2:]))
  open('watched/%d' % n, 'w').close(); os.unlink('watched/%d' % n)
  # The peer drops what was not read when it saves.
  for attempt in range(2):
    try: same('watch', struct.unpack_from('iI', os.read(inotify, 4096)), (watch, 0x100)); break
    except BlockingIOError:
      if attempt == 1: fail('no event')
      open('watched/%d' % n, 'w').close(); os.unlink('watched/%d' % n)
  os.kill(os.getpid(), signal.SIGUSR1)
  os.write(w, b'y')
  ready = {fd for fd, _ in epoll.poll(1)}
  same('ready', ready, {level, signals})
  same('nested', [fd for fd, _ in outer.poll(1)], [epoll.fileno()])
  same('signal', struct.unpack_from('I', os.read(signals, 128))[0], signal.SIGUSR1)
  os.read(r, 1)
  if n % 5 == 0:
    epoll.modify(once, select.EPOLLIN | select.EPOLLONESHOT)
    same('armed', once in {fd for fd, _ in epoll.poll(1)}, True)
  # One that has expired the peer leaves standing, so it never does.
  left = ctypes.create_string_buffer(32); libc.timerfd_gettime(timer, left)
  same('timer', [500 <= s <= 1000 for s in struct.unpack('4q', left.raw)[::2]], [True, True])
  same('ring', struct.unpack('<8I', ctypes.string_at(context.value, 32))[2:4], (0, 1))
  beat(n); n += 1; time.sleep(0.005)
`;

export const EVENT_PROGRAM = {
  name: 'watches, pidfds, epolls, timers, signals and asynchronous I/O',
  start: () => Subject.python(EVENTS),
};
