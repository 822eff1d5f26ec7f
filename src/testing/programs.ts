import { readFileSync } from 'node:fs';
import { EVENT_PROGRAM } from './event-program.js';
import { SOCKET_PROGRAM } from './socket-program.js';
import { Subject } from './subject.js';

/**
 * Real programs that tell how they are: all but one print "beat N" again and again, N counting up, and "FAIL …" when
 * something is not as they left it.
 */
export interface Program {
  readonly name: string;
  readonly start: () => Subject;
  /** It prints nothing, and only sleeps. */
  readonly isSilent?: boolean;
}

const PYTHON = `
import ctypes, mmap, os, select, signal, struct, sys, threading, time
def beat(n): os.write(1, b'beat %d\\n' % n)
def fail(*words): os.write(1, ('FAIL ' + ' '.join(map(str, words)) + chr(10)).encode())
def same(what, a, b):
  if a != b: fail(what, a, 'is not', b)
`;

/** Three processes that pass a number on by pipe, eventfd, shared anonymous memory and memfd. */
const EXCHANGE = `${PYTHON}
shared = mmap.mmap(-1, 4 * 4096)
fd = os.memfd_create('exchange'); os.ftruncate(fd, 8192)
file = mmap.mmap(fd, 8192)
event = os.eventfd(0)
(r1, w1), (r2, w2) = os.pipe(), os.pipe()
if os.fork() == 0:
  while True:
    n = struct.unpack('q', os.read(r1, 8))[0]
    same('shared memory', struct.unpack_from('q', shared, 8192)[0], n)
    struct.pack_into('q', file, 4096, n * 2)
    os.write(w2, struct.pack('q', n))
if os.fork() == 0:
  while True:
    n = struct.unpack('q', os.read(r2, 8))[0]
    same('memfd', struct.unpack('q', os.pread(fd, 8, 4096))[0], n * 2)
    os.eventfd_write(event, n)
n = 1
while True:
  struct.pack_into('q', shared, 8192, n)
  os.write(w1, struct.pack('q', n))
  same('eventfd', os.eventfd_read(event), n)
  beat(n); n += 1; time.sleep(0.02)
`;

/** Threads, an interval timer, a POSIX timer, masks, pending and queued signals, an alternate stack. */
const THREADS = `${PYTHON}
counts = [0] * 4; ticks = [0]
def work(index):
  if index == 3: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])
  while True:
    counts[index] += 1; time.sleep(0.005)
    if index == 3: same('mask', signal.pthread_sigmask(signal.SIG_BLOCK, []), {signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP})
def tick(*_): ticks[0] += 1
signal.signal(signal.SIGALRM, tick)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
os.kill(os.getpid(), signal.SIGHUP)
for index in range(4): threading.Thread(target=work, args=(index,), daemon=True).start()
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
tids = sorted(os.listdir('/proc/self/task'))
n = 1
while True:
  before = counts[:] + ticks
  deadline = time.monotonic() + 20
  while any(a == b for a, b in zip(before, counts + ticks)) and time.monotonic() < deadline: time.sleep(0.005)
  if any(a == b for a, b in zip(before, counts + ticks)): fail('a thread or the timer stands still', before, counts + ticks)
  same('pending', signal.sigpending(), {signal.SIGHUP})
  same('interval', round(signal.getitimer(signal.ITIMER_REAL)[1], 3), 0.01)
  same('threads', sorted(os.listdir('/proc/self/task')), tids)
  beat(n); n += 1
`;

/** A session, a group, a stopped child, a zombie, deleted and appended files. */
const FAMILY = `${PYTHON}
def child(body):
  pid = os.fork()
  if pid == 0:
    body()
    while True: signal.sigtimedwait((), 0.05)
  return pid
ready = os.pipe()
def done(body): return lambda: (body(), os.write(ready[1], b'x'))
leader = child(done(os.setsid))
group = child(done(lambda: os.setpgid(0, 0)))
os.read(ready[0], 1); os.read(ready[0], 1)
stopped = child(lambda: os.kill(os.getpid(), signal.SIGSTOP))
os.waitid(os.P_PID, stopped, os.WSTOPPED | os.WNOWAIT)
zombie = child(lambda: os._exit(3))
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
os.chdir(os.path.dirname(sys.argv[0]))
gone = os.open('deleted', os.O_CREAT | os.O_RDWR, 0o600); os.unlink('deleted')
os.write(gone, b'ghost' * 1000)
state = lambda pid: open('/proc/%d/stat' % pid).read().rsplit(')', 1)[1].split()
n = 1
while True:
  same('session', os.getsid(leader), leader)
  same('group', os.getpgid(group), group)
  same('sessions of others', os.getsid(group), os.getsid(0))
  states = lambda: [state(pid)[0] for pid in (leader, group, stopped, zombie)]
  # Tasks are let go one after the other, so that a parent can see its children on their way.
  deadline = time.monotonic() + 10
  while states() != ['S', 'S', 'T', 'Z'] and time.monotonic() < deadline: pass
  same('states', states(), ['S', 'S', 'T', 'Z'])
  same('end of the zombie', os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT).si_status, 3)
  same('deleted file', os.pread(gone, 6000, 0), b'ghost' * 1000)
  beat(n); n += 1; time.sleep(0.02)
`;

/** Unix sockets, at any moment with something in every queue: a connection not accepted, datagrams, descriptors in flight. */
const UNIX = `${PYTHON}
import socket
place = os.path.dirname(os.path.abspath(sys.argv[0]))
def connected(name, kind):
  made = socket.socket(socket.AF_UNIX, kind); made.connect(place + name); return made
def bound(name, kind):
  made = socket.socket(socket.AF_UNIX, kind); made.bind(place + name); return made
a, b = socket.socketpair(); a.send(b'stream')
listener = bound('/listener', socket.SOCK_STREAM); listener.listen(5)
waiting = connected('/listener', socket.SOCK_STREAM)
server, client = bound('/server', socket.SOCK_DGRAM), connected('/server', socket.SOCK_DGRAM)
for text in (b'one', b'two'): client.send(text)
carry, carried = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
r, w = os.pipe(); os.write(w, b'in the pipe'); socket.send_fds(carry, [b'flight'], [r, w]); os.close(r); os.close(w)
to_child, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
if os.fork() == 0:
  while True: child.send(child.recv(100) + b' back')
n = 1
while True:
  to_child.send(b'there')
  same('stream', b.recv(100), b'stream'); a.send(b'stream')
  for text in (b'one', b'two'): same('datagram', server.recv(100), text); client.send(text)
  accepted, _ = listener.accept()
  accepted.send(b'from the server'); same('accepted', waiting.recv(100), b'from the server')
  accepted.close(); waiting.close(); waiting = connected('/listener', socket.SOCK_STREAM)
  data, fds, _, _ = socket.recv_fds(carried, 100, 9)
  same('in flight', (data, os.read(fds[0], 100)), (b'flight', b'in the pipe'))
  os.write(fds[1], b'in the pipe'); socket.send_fds(carry, [b'flight'], fds)
  for fd in fds: os.close(fd)
  same('child', to_child.recv(100), b'there back')
  beat(n); n += 1; time.sleep(0.02)
`;

/** Scattered pages, protections and inherited memory, with their contents checked. */
const MEMORY = `${PYTHON}
m = mmap.mmap(-1, 256 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
places = [i * 997 % 65536 * 4096 for i in range(500)]
for at in places: m[at:at + 8] = struct.pack('q', at)
libc = ctypes.CDLL(None)
base = ctypes.addressof(ctypes.c_char.from_buffer(m))
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mprotect(base, 4096 * 997, 1)
(r, w) = os.pipe()
if os.fork() == 0:
  while True:
    at = struct.unpack('q', os.read(r, 8))[0]
    same('inherited page', struct.unpack('q', m[at:at + 8])[0], at)
n = 1
while True:
  for at in places: same('page', struct.unpack('q', m[at:at + 8])[0], at)
  same('a page never written', m[5 * 4096:5 * 4096 + 8], bytes(8))
  os.write(w, struct.pack('q', places[n % 500]))
  beat(n); n += 1; time.sleep(0.02)
`;

const BASH = `(n=1; while :; do echo $n; n=$((n+1)); sleep 0.01; done) | while read n; do echo beat $n; done`;

const PERL = `
use strict; $| = 1;
my %table = map { $_ => $_ * $_ } 1 .. 20000;
pipe(my $r, my $w); my $ticks = 0; $SIG{ALRM} = sub { $ticks++ };
for (my $n = 1; ; $n++) {
  syswrite($w, pack('N', $n)); sysread($r, my $got, 4);
  print "FAIL pipe\\n" if unpack('N', $got) != $n;
  print "FAIL table\\n" if $table{$n % 20000 + 1} != ($n % 20000 + 1) ** 2;
  print "beat $n\\n"; select(undef, undef, undef, 0.02);
}
`;

const NODE = `
let n = 0;
const table = new Map(Array.from({ length: 10000 }, (_, i) => [i, 'x' + i]));
setInterval(() => {
  n++;
  if (table.get(n % 10000) !== 'x' + (n % 10000)) console.log('FAIL table');
  require('fs').writeSync(1, 'beat ' + n + '\\n');
}, 20);
`;

/** A shell with a stopped and a background job in a terminal whose master we have; every beat is a command of it. */
const TERMINAL = `${PYTHON}
import fcntl, pty, re, termios
m, s = os.openpty()
fcntl.ioctl(s, 0x5414, struct.pack('HHHH', 31, 99, 0, 0))
shell = os.fork()
if shell == 0:
  os.setsid(); fcntl.ioctl(s, 0x540e, 0)
  for fd in (0, 1, 2): os.dup2(s, fd)
  os.close(m); os.close(s)
  os.execvpe('bash', ['bash', '--norc', '-i'], {'PS1': '', 'TERM': 'dumb', 'PATH': '/usr/bin:/bin'})
os.close(s)
text = b''
def say(line): os.write(m, line.encode() + b'\\n')
def hear(pattern):
  global text
  while True:
    match = re.search(pattern, text)
    if match: text = text[match.end():]; return match
    text += os.read(m, 4096)
say('stty -echo; echo be""gin'); hear(b'begin')
say('sleep 100001 & sleep 100002')
def leads(pid):
  # Not the shell, nor the child of it that does not run sleep yet, and has its signals still.
  try: return open('/proc/%d/comm' % pid).read() == 'sleep\\n'
  except OSError: return False
while not leads(os.tcgetpgrp(m)): time.sleep(0.01)
os.write(m, b'\\x1a'); hear(b'Stopped')
n = 1
while True:
  say('stty size; jobs; echo beat=%d' % n)
  answer = hear(b'(?s)(.*?)beat=%d\\r\\n' % n)[1]
  same('answer', [word for word in (b'31 99', b'Stopped', b'Running') if word not in answer], [])
  same('foreground', os.tcgetpgrp(m), shell)
  beat(n); n += 1; time.sleep(0.02)
`;

export const PROGRAMS: readonly Program[] = [
  { name: 'sleep', start: () => Subject.start(['sleep', '100000']), isSilent: true },
  { name: 'bash with pipes', start: () => Subject.start(['bash', '-c', BASH]) },
  { name: 'processes with pipes, eventfd, shared memory and memfd', start: () => Subject.python(EXCHANGE) },
  { name: 'threads, timers, masks and pending signals', start: () => Subject.python(THREADS) },
  {
    name: 'sessions, groups, a zombie, a stopped child, a deleted file',
    start: () => Subject.python(FAMILY),
  },
  { name: 'Unix sockets with full queues', start: () => Subject.python(UNIX) },
  { name: 'a shell with jobs in a terminal', start: () => Subject.python(TERMINAL) },
  { name: 'sparse, protected and inherited memory', start: () => Subject.python(MEMORY) },
  { name: 'perl', start: () => Subject.start(['perl', '-e', PERL]) },
  EVENT_PROGRAM,
  SOCKET_PROGRAM,
  { name: 'node', start: () => Subject.start([process.execPath, '-e', NODE]) },
];

/** Go on until a program has shown that it works: three beats from now on, none left out, and no complaint ever. */
export async function assertWorks(subject: Subject, { isSilent = false }: Program): Promise<void> {
  if (isSilent) {
    await untilAsleep(subject);
    return;
  }
  const last = beats(subject).at(-1) ?? 0;
  await subject.expect(new RegExp(`^(beat ${last + 3}|FAIL.*|Traceback.*)$`, 'm'));
  const complaint = /^(FAIL|Traceback)[\s\S]*/m.exec(subject.output);
  if (complaint !== null) throw new Error(complaint[0]);
  beats(subject).forEach((beat, index) => {
    if (beat !== index + 1) throw new Error(`beat ${index + 1} is missing, ${beat} came`);
  });
}

/** It has become the program it is started as, and sleeps. */
async function untilAsleep({ pid }: Subject): Promise<void> {
  for (const deadline = Date.now() + 20_000; ; ) {
    const state = readFileSync(`/proc/${pid}/status`, 'utf8');
    if (/^Name:\s+sleep\nUmask:.*\nState:\s+S/.test(state)) return;
    if (Date.now() > deadline) throw new Error(`pid ${pid} does not sleep:\n${state}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function beats(subject: Subject): number[] {
  return [...subject.output.matchAll(/^beat (\d+)\n/gm)].map((match) => Number(match[1]));
}
