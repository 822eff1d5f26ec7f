import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { readStat } from '../kernel/procfs/stat.js';
import { readTree } from '../kernel/procfs/tree.js';
import { attempt } from '../kernel/syscall.js';
import { CHECKPOINT, RESTORE } from '../testing/options.js';
import { Subject } from '../testing/subject.js';
import { dump } from './dump.js';
import { UnsupportedError } from './errors.js';
import { restore } from './restore.js';

/** Terminals with the sessions they control, whole: what the program sees before and after is compared. */

const PRELUDE = `
import ctypes, errno, fcntl, json, os, select, signal, struct, sys, termios, time, tty
libc = ctypes.CDLL(None, use_errno=True)
def tell(*words): os.write(1, (' '.join(map(str, words)) + chr(10)).encode())
def ioctl(fd, request, length=4):
  try: return fcntl.ioctl(fd, request, bytes(length)).hex()
  except OSError as e: return errno.errorcode[e.errno]
def number(fd, request): 
  try: return struct.unpack('i', fcntl.ioctl(fd, request, bytes(4)))[0]
  except OSError as e: return errno.errorcode[e.errno]
def events(fd):
  p = select.poll(); p.register(fd, select.POLLIN | select.POLLOUT | select.POLLPRI)
  return sum(e for _, e in p.poll(0))
def state(fd):
  st = os.fstat(fd)
  return [os.readlink('/proc/self/fd/%d' % fd), ioctl(fd, 0x802c542a, 44), ioctl(fd, 0x5456, 36), ioctl(fd, 0x5413, 8),
    number(fd, 0x80045432), number(fd, 0x80045440), number(fd, 0x80045438), number(fd, 0x80045439), number(fd, 0x541b),
    events(fd), st.st_uid, st.st_gid, oct(st.st_mode), fcntl.fcntl(fd, 3)]
def until(what):
  while not what(): time.sleep(0.005)
def raw(fd, **more):
  t = termios.tcgetattr(fd); t[0] = t[1] = t[3] = 0; termios.tcsetattr(fd, termios.TCSANOW, t)
def child(body):
  pid = os.fork()
  if pid == 0:
    try: body()
    finally: os._exit(0)
  return pid
def forever():
  while True: signal.sigtimedwait((), 0.05)
`;

const PAIRS = `${PRELUDE}
T = {}
gap, gap2 = os.openpty()
m, s = os.openpty(); T['m'] = m; T['s'] = s
raw(s); os.write(m, b'in\\x03\\0\\xff'); os.write(s, b'out\\n\\0')
t2 = bytearray(fcntl.ioctl(s, 0x802c542a, bytes(44)))
c = struct.unpack_from('I', t2, 8)[0]; struct.pack_into('I', t2, 8, (c & ~0x100f) | 0x1000)
struct.pack_into('II', t2, 36, 12345, 12345); fcntl.ioctl(s, 0x402c542b, bytes(t2))
fcntl.ioctl(s, 0x5414, struct.pack('HHHH', 33, 77, 5, 6))
fcntl.ioctl(s, 0x5457, bytes([1] + [0] * 35))
os.fchown(s, 123, 456); os.fchmod(s, 0o640)
fcntl.ioctl(m, 0x5420, struct.pack('i', 1)); fcntl.ioctl(m, 0x540c)
T['s2'] = os.open(os.ttyname(s), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
# Lines, an end of file, and a line that is not complete.
lm, ls = os.openpty(); T['lm'] = lm; T['ls'] = ls
os.write(lm, b'one\\ntwo\\n\\x04part')
# A locked one whose slave was never opened, and one whose slave was closed with output unread.
T['lone'] = os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY)
cm, cs = os.openpty(); os.write(cs, b'last words'); os.fchmod(cs, 0o666); os.close(cs); T['cm'] = cm
# Hung up.
hm, hs = os.openpty(); os.close(hm); T['hs'] = hs
# More than the line discipline takes.
bm, bs = os.openpty(); T['bm'] = bm; T['bs'] = bs
raw(bs); os.set_blocking(bm, False); os.set_blocking(bs, False)
IN = bytes(i * 7 % 251 for i in range(6000)); OUT = bytes(i * 11 % 253 for i in range(9000))
os.write(bm, IN); os.write(bs, OUT)
# Stopped by ^S.
xm, xs = os.openpty(); T['xm'] = xm; T['xs'] = xs
os.write(xs, b'before'); os.write(xm, b'\\x13'); until(lambda: not events(xs) & 4)
# One that was hung up and opened again.
vm, vs = os.openpty(); T['vm'] = vm; T['vs'] = vs; name = os.ttyname(vs)
fcntl.ioctl(vs, 0x5437); T['vs2'] = os.open(name, os.O_RDWR | os.O_NOCTTY)
os.close(gap); os.close(gap2)
until(lambda: number(bs, 0x541b) >= 4095 and number(bm, 0x541b) >= 4095 and number(ls, 0x541b) == 8)

def report(*_): tell('report', json.dumps({name: state(fd) for name, fd in T.items()}))
def get(fd, n):
  data = b''
  while len(data) < n:
    select.select([fd], [], [])
    data += os.read(fd, n - len(data))
  return data
def same(what, a, b): tell('FAIL', what, a, b) if a != b else None
def contents(*_):
  fcntl.ioctl(m, 0x5420, struct.pack('i', 0))
  same('raw in', get(s, 5), b'in\\x03\\0\\xff'); same('raw out', get(m, 5), b'out\\n\\0')
  same('line', os.read(ls, 100), b'one\\n'); same('line', os.read(ls, 100), b'two\\n'); same('end', os.read(ls, 100), b'')
  same('not complete', events(ls) & 1, 0)
  os.write(lm, b'\\x7fial\\n'); same('completed', os.read(ls, 100), b'parial\\n')
  same('echo', get(lm, 17), b'one\\r\\ntwo\\r\\npart\\x08 \\x08')
  same('closed', get(cm, 10), b'last words')
  try: os.read(cm, 10); tell('FAIL closed')
  except OSError as e: same('closed', e.errno, errno.EIO)
  same('hung up', os.read(hs, 10), b''); same('hung up', os.read(vs, 10), b'')
  same('much in', get(bs, 6000), IN); same('much out', get(bm, 9000), OUT)
  same('stopped', get(xm, 6), b'before'); os.write(xm, b'\\x11'); until(lambda: events(xs) & 4)
  os.write(xs, b'after'); same('started', get(xm, 5), b'after')
  os.write(vm, b'again\\n'); same('opened again', os.read(T['vs2'], 10), b'again\\n')
  tell('contents done')
signal.signal(signal.SIGUSR1, report); signal.signal(signal.SIGUSR2, contents)
tell('ready'); forever()
`;

async function trip(
  code: string,
  afterwards: 'kill' | 'run',
  test: (subject: Subject, again: () => Promise<void>) => Promise<void>,
): Promise<void> {
  using subject = Subject.python(code);
  const members = (): number[] => {
    try {
      return readTree(subject.pid).map(({ pid }) => pid);
    } catch {
      return [];
    }
  };
  const before = members();
  try {
    await subject.expect(/ready/);
    let round = 0;
    await test(subject, async () => {
      const directory = join(subject.directory, `image-${round++}`);
      dump({ ...CHECKPOINT, pid: subject.pid, directory, afterwards });
      if (afterwards === 'kill') restore({ ...RESTORE, directory });
    });
  } finally {
    for (const pid of new Set([...before, ...members()])) attempt('kill', [pid, 9]);
  }
}

/** The n-th report, of all that the program says of its terminals. */
async function report(subject: Subject, n: number): Promise<Record<string, unknown[]>> {
  subject.signal(10);
  await subject.expect(new RegExp(`^(report .*\\n[sS]*?){${n}}`, 'm'));
  const lines = [...subject.output.matchAll(/^report (.*)$/gm)];
  return JSON.parse(lines[n - 1]?.[1] ?? '{}');
}

for (const afterwards of ['kill', 'run'] as const)
  test(`pairs of all kinds and what waits in them (${afterwards})`, () =>
    trip(PAIRS, afterwards, async (subject, again) => {
      const before = await report(subject, 1);
      await again();
      assert.deepEqual(await report(subject, 2), before);
      await again();
      assert.deepEqual(await report(subject, 3), before);
      subject.signal(12);
      await subject.expect(/contents done|Traceback/);
      assert.deepEqual(subject.output.match(/^(FAIL.*|Traceback[\s\S]*)/gm) ?? [], []);
    }));

const SESSIONS = `${PRELUDE}
libc.prctl(36, 1, 0, 0, 0)
def told(name):
  def handler(signum, frame): tell(name, signal.Signals(signum).name)
  for s in (signal.SIGINT, signal.SIGHUP, signal.SIGCONT, signal.SIGTTOU, signal.SIGWINCH, signal.SIGTTIN): signal.signal(s, handler)
def session(name, master, slave, only=True):
  for fd in list(range(3, 20)):
    if fd != slave:
      try: os.close(fd)
      except OSError: pass
  os.setsid(); told(name)
  def without(): told(name + ' early'); tell(name, 'early is there'); forever()
  child(without)
  fcntl.ioctl(slave, 0x540e, 0)
  def gave_up():
    fcntl.ioctl(slave, 0x5422); tell(name, 'gave up'); forever()
  child(gave_up)
  def foreground(): os.setpgid(0, 0); told(name + ' foreground'); tell(name, 'ready'); forever()
  f = child(foreground)
  until(lambda: os.getpgid(f) == f)
  def background(): os.setpgid(0, 0); told(name + ' background'); tell(name, 'behind'); forever()
  child(background)
  signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
  os.tcsetpgrp(slave, f)
  signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTTOU])
  t = os.open('/dev/tty', os.O_RDWR)
  os.close(slave) if only else None
  tell(name, 'settled'); forever()
m1, s1 = os.openpty(); m2, s2 = os.openpty(); m3, s3 = os.openpty()
child(lambda: session('first', m1, s1))
child(lambda: session('second', m2, s2, False))
# The foreground group has ended.
def empty():
  os.setsid(); told('third'); fcntl.ioctl(s3, 0x540e, 0)
  f = child(lambda: (os.setpgid(0, 0), forever()))
  until(lambda: os.getpgid(f) == f)
  os.tcsetpgrp(s3, f); os.kill(f, 9); os.waitpid(f, 0)
  os.close(s3); os.close(m1); os.close(m2); os.close(m3); tell('third ready'); forever()
child(empty)
os.close(s1); os.close(s2); os.close(s3)
def interrupt(*_):
  os.write(m1, b'\\x03'); os.write(m2, b'\\x03'); fcntl.ioctl(m2, 0x5414, struct.pack('HHHH', 3, 4, 5, 6))
def hang_up(*_): os.close(m1)
signal.signal(signal.SIGUSR1, interrupt); signal.signal(signal.SIGUSR2, hang_up)
tell('root'); 
out = '/proc/self/fd/1'
said = [who + ' ' + what for who in ('first', 'second') for what in ('ready', 'early', 'gave up', 'behind', 'settled')] + ['third ready']
until(lambda: all(w in open(out).read() for w in said))
tell('all ready'); forever()
`;

/** Which terminal controls whom, and who is in the foreground. */
function control(root: number): string[] {
  return readTree(root)
    .map(({ pid }) => {
      const { session, pgrp, tty_nr, tpgid } = readStat(pid);
      return `${pid}: session ${session}, group ${pgrp}, terminal ${tty_nr}, foreground ${tpgid}`;
    })
    .sort();
}

for (const afterwards of ['kill', 'run'] as const)
  test(`sessions, their terminals and foreground groups (${afterwards})`, () =>
    trip(SESSIONS, afterwards, async (subject, again) => {
      await subject.expect(/all ready/);
      const before = control(subject.pid);
      assert.equal(before.filter((line) => !line.includes('terminal 0')).length, 7);
      await again();
      assert.deepEqual(control(subject.pid), before);
      await again();
      assert.deepEqual(control(subject.pid), before);
      assert.doesNotMatch(subject.output, /SIG|Traceback/);
      subject.signal(10);
      await subject.expect(/first foreground SIGINT/);
      await subject.expect(/second foreground SIGINT/);
      await subject.expect(/second foreground SIGWINCH/);
      subject.signal(12);
      await subject.expect(/first SIGHUP/);
      assert.doesNotMatch(subject.output, /background SIGINT|early SIG|SIGTTOU|Traceback/);
    }));

test('a slave whose master is outside of the tree is refused', async () => {
  const code = `${PRELUDE}
m, s = os.openpty()
def inner():
  os.close(m); os.setsid(); fcntl.ioctl(s, 0x540e, 0); tell('pid', os.getpid(), '.'); forever()
child(inner)
tell('ready'); forever()`;
  await trip(code, 'kill', async (subject) => {
    const pid = Number((await subject.expect(/pid (\d+) \./))[1]);
    const directory = join(subject.directory, 'image');
    assert.throws(
      () => dump({ ...CHECKPOINT, pid, directory }),
      (error) => error instanceof UnsupportedError && /master is not in the tree/.test(error.message),
    );
  });
});
