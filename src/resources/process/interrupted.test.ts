import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SYSCALL_X86_64, type SyscallName } from '../../abi/syscalls.js';
import { readSyscall } from '../../kernel/procfs/scalars.js';
import { NO_SYSCALL, REGISTER_NAMES, type Registers } from '../../kernel/registers.js';
import { readRemote } from '../../kernel/remote.js';
import { giveBack } from '../../tape/borrow.js';
import {
  cureForThaw,
  numberBefore,
  registersForImage,
  registersFromImage,
  restartCode,
} from './interrupted.js';
import { borrowAll, freezeProcess, isInside, runInside, Subject, thaw } from './testing.js';

function registers(orig_ax: bigint, ax: bigint): Registers {
  const zero = Object.fromEntries(REGISTER_NAMES.map((name) => [name, 0n])) as Registers;
  return { ...zero, orig_ax, ax: BigInt.asUintN(64, ax), ip: 0x1002n };
}

const number = (name: SyscallName) => BigInt(SYSCALL_X86_64[name]);
const signed = (value: bigint) => BigInt.asIntN(64, value);

test('the cure for the thaw', () => {
  const table: [SyscallName | undefined, bigint, bigint][] = [
    ['epoll_wait', -4n, -514n],
    ['recvfrom', -4n, -514n],
    ['epoll_wait', 3n, 3n],
    ['close', -4n, -4n],
    ['restart_syscall', -4n, -4n],
    ['pause', -514n, -514n],
    ['nanosleep', -516n, -516n],
    [undefined, -4n, -4n],
  ];
  for (const [name, ax, wanted] of table) {
    const before = registers(name === undefined ? NO_SYSCALL : number(name), ax);
    const after = cureForThaw(before);
    assert.equal(signed(after.ax), wanted, name);
    assert.deepEqual({ ...after, ax: 0n }, { ...before, ax: 0n });
  }
});

test('the image has interrupted calls rewound, and the code with which the kernel goes on', () => {
  const table: [SyscallName, bigint, number | undefined][] = [
    ['read', -512n, -512],
    ['futex', -513n, undefined],
    ['pause', -514n, -514],
    ['epoll_wait', -4n, -514],
    ['poll', -516n, -514],
  ];
  for (const [name, ax, code] of table) {
    const frozen = registers(number(name), ax);
    const image = registersForImage(frozen);
    assert.deepEqual([image.ax, image.orig_ax, image.ip], [number(name), number(name), 0x1000n], name);
    assert.equal(restartCode(frozen), code, name);
    const back = registersFromImage(image, code);
    if (code === undefined)
      assert.deepEqual([back.ax, back.ip, back.orig_ax], [number(name), 0x1000n, NO_SYSCALL]);
    else assert.deepEqual([signed(back.ax), back.ip, back.orig_ax], [BigInt(code), 0x1002n, number(name)]);
  }
  assert.equal(signed(registersForImage(registers(number('restart_syscall'), -516n)).ax), -4n);
  assert.deepEqual(registersForImage(registers(number('read'), 7n)).ax, 7n);
  assert.throws(() => registersFromImage(registers(3n, 3n), -17), /-17/);
});

test('the number before a system call instruction', () => {
  const code = (hex: string) => Uint8Array.from(Buffer.from(hex, 'hex'));
  assert.equal(numberBefore(code('b8230000004889c6')), 35);
  assert.equal(numberBefore(code('b8ca000000b80100000089d7')), 202);
  assert.equal(numberBefore(code('b801000000')), undefined);
  assert.equal(numberBefore(new Uint8Array()), undefined);
});

/** Calls that block for good, or for a hundred seconds: name for the subject, and the call it is in then. */
const BLOCKING: readonly (readonly [string, SyscallName])[] = [
  ['epoll_wait', 'epoll_wait'], ['epoll_wait_100s', 'epoll_wait'], ['epoll_pwait', 'epoll_pwait'],
  ['semop', 'semop'], ['semtimedop', 'semtimedop'],
  ['sigtimedwait', 'rt_sigtimedwait'], ['sigwaitinfo', 'rt_sigtimedwait'],
  ['io_getevents', 'io_getevents'],
  ['recv_timeout', 'recvfrom'], ['read_timeout', 'read'], ['accept_timeout', 'accept'],
  ['send_timeout', 'sendto'], ['connect_timeout', 'connect'],
  ['nanosleep', 'nanosleep'], ['nanosleep_rem', 'nanosleep'], ['clock_nanosleep', 'clock_nanosleep'],
  ['clock_nanosleep_abs', 'clock_nanosleep'],
  ['poll', 'poll'], ['poll_100s', 'poll'], ['ppoll', 'ppoll'], ['select', 'select'], ['pselect', 'pselect6'],
  ['sem_wait', 'futex'], ['sem_timedwait', 'futex'],
  ['pause', 'pause'], ['sigsuspend', 'rt_sigsuspend'], ['wait4', 'wait4'],
  ['read_pipe', 'read'], ['flock', 'flock'], ['msgrcv', 'msgrcv'], ['open_fifo', 'openat'],
]; // biome-ignore format: a family a line

const PROGRAM = `
import ctypes, os, signal, socket, struct, sys, tempfile, fcntl
c = ctypes.CDLL(None, use_errno=True)
p = ctypes.c_void_p; n = None
def buf(fmt, *v): return ctypes.create_string_buffer(struct.pack(fmt, *v))
signal.signal(signal.SIGUSR1, lambda *a: None)
mask = buf('Q', 1 << 11)
signal.pthread_sigmask(signal.SIG_BLOCK, [12])
ep = c.epoll_create1(0); events = ctypes.create_string_buffer(64)
sem = c.semget(0, 1, 0o600); sop = buf('HhH', 0, -1, 0)
long_ = lambda: buf('qq', 100, 0)
aio = ctypes.c_ulong(0); assert c.syscall(206, 4, ctypes.byref(aio)) == 0
a, b = socket.socketpair(); tv = struct.pack('qq', 100, 0)
a.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, tv); a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, tv)
d = socket.socketpair()
d[0].setblocking(False)
try:
    while True: d[0].send(b'x' * 65536)
except BlockingIOError: pass
d[0].setblocking(True); d[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, tv)
l = socket.socket(socket.AF_UNIX); l.bind('\\0stasis-%d' % os.getpid()); l.listen(0)
l2 = socket.socket(socket.AF_UNIX); l2.bind('\\0stasis2-%d' % os.getpid()); l2.listen(1)
l2.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, tv)
full = socket.socket(socket.AF_UNIX); full.connect('\\0stasis-%d' % os.getpid())
k = socket.socket(socket.AF_UNIX); k.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, tv)
name = ('stasis-%d' % os.getpid()).encode(); addr = struct.pack('H', 1) + b'\\0' + name
r, w = os.pipe(); fds = buf('ihh', r, 1, 0)
sems = ctypes.create_string_buffer(32); c.sem_init(sems, 0, 0)
if os.fork() == 0:
    signal.pause(); os._exit(0)
f1 = tempfile.NamedTemporaryFile(); f2 = open(f1.name); fcntl.flock(f1, fcntl.LOCK_EX)
msq = c.msgget(0, 0o600)
fifo = f1.name + '.fifo'; os.mkfifo(fifo)
import time
def soon(): return buf('qq', int(time.clock_gettime(1)) + 100, 0)
def wall(): return buf('qq', int(time.time()) + 100, 0)
def rset():
    s = bytearray(128); s[r // 8] |= 1 << (r % 8); return ctypes.create_string_buffer(bytes(s))
same = long_()
calls = {
 'epoll_wait': lambda: c.epoll_wait(ep, events, 1, -1),
 'epoll_wait_100s': lambda: c.epoll_wait(ep, events, 1, 100000),
 'epoll_pwait': lambda: c.epoll_pwait(ep, events, 1, -1, mask),
 'semop': lambda: c.syscall(65, sem, sop, 1),
 'semtimedop': lambda: c.syscall(220, sem, sop, 1, long_()),
 'sigtimedwait': lambda: c.syscall(128, mask, n, long_(), 8),
 'sigwaitinfo': lambda: c.syscall(128, mask, n, n, 8),
 'io_getevents': lambda: c.syscall(208, aio, 1, 1, events, long_()),
 'recv_timeout': lambda: c.recv(a.fileno(), events, 8, 0),
 'read_timeout': lambda: c.read(a.fileno(), events, 8),
 'accept_timeout': lambda: c.accept(l2.fileno(), n, n),
 'send_timeout': lambda: c.send(d[0].fileno(), ctypes.create_string_buffer(1 << 20), 1 << 20, 0),
 'connect_timeout': lambda: c.connect(k.fileno(), addr, len(addr)),
 'nanosleep': lambda: c.syscall(35, long_(), n),
 'nanosleep_rem': lambda: c.syscall(35, same, same),
 'clock_nanosleep': lambda: -c.clock_nanosleep(1, 0, long_(), n),
 'clock_nanosleep_abs': lambda: -c.clock_nanosleep(1, 1, soon(), n),
 'poll': lambda: c.poll(fds, 1, -1), 'poll_100s': lambda: c.poll(fds, 1, 100000),
 'ppoll': lambda: c.ppoll(fds, 1, long_(), mask),
 'select': lambda: c.syscall(23, r + 1, rset(), n, n, long_()),
 'pselect': lambda: c.pselect(r + 1, rset(), n, n, long_(), mask),
 'sem_wait': lambda: c.sem_wait(sems), 'sem_timedwait': lambda: c.sem_timedwait(sems, wall()),
 'pause': lambda: c.syscall(34), 'sigsuspend': lambda: c.syscall(130, mask, 8),
 'wait4': lambda: c.syscall(61, -1, n, 0, n),
 'read_pipe': lambda: c.read(r, events, 8), 'flock': lambda: c.flock(f2.fileno(), 2),
 'msgrcv': lambda: c.msgrcv(msq, events, 8, 0, 0), 'open_fifo': lambda: c.open(fifo.encode(), 0),
}
print('ready')
while True:
    what = sys.stdin.readline().strip()
    result = calls[what]()
    print(what, result, ctypes.get_errno())
`;

/** How often every blocked call is frozen and let go; STASIS_THAWS=1000 is the long run, some minutes. */
const FREEZES = Number(process.env.STASIS_THAWS ?? 12);

/** Wait until the subject sleeps in the call, perhaps one that the kernel makes again. */
function waitUntilIn(pid: number, call: SyscallName): void {
  for (const deadline = Date.now() + 10_000; Date.now() < deadline; ) {
    const current = readSyscall(pid);
    if (current.kind !== 'syscall') continue;
    if (current.number === SYSCALL_X86_64[call] || current.number === SYSCALL_X86_64.restart_syscall) return;
  }
  throw new Error(`pid ${pid} is not in ${call}`);
}

/** What the image would hold: an instruction that makes the call again, or −EINTR where the call is not known. */
function checkImage(pid: number, call: SyscallName, frozen: Registers, mayBeUnknown: boolean): void {
  const image = registersForImage(frozen, { tid: pid });
  const isUnknown = image.orig_ax === number('restart_syscall') && signed(image.ax) === -4n;
  if (isUnknown && mayBeUnknown) return;
  assert.equal(image.ax, number(call), `${call}: ax`);
  assert.deepEqual(Buffer.from(readRemote(pid, image.ip, 2)), Buffer.from([0x0f, 0x05]), call);
}

function freezeOften(subject: Subject, name: string, call: SyscallName): void {
  const { pid } = subject;
  for (let i = 0; i < FREEZES; i++) {
    // Every other time as soon as it was let go, while it is on its way back into the call.
    if (i % 2 === 0) waitUntilIn(pid, call);
    const found = freezeProcess(pid);
    const frozen = found.leader.frozen?.registers;
    if (frozen !== undefined && i % 2 === 0) checkImage(pid, call, frozen, name.startsWith('nanosleep'));
    giveBack(borrowAll(found));
    thaw(found);
  }
  waitUntilIn(pid, call);
  process.kill(pid, 'SIGUSR1');
}

if (!isInside()) {
  test('blocked programs, in a pid namespace', () => {
    const { status, output } = runInside(import.meta.url);
    assert.equal(status, 0, output);
  });
} else {
  test('no blocked call returns early, and a real signal still ends it', async (t) => {
    using subject = new Subject(PROGRAM);
    assert.equal(subject.said(), 'ready');
    for (const [name, call] of BLOCKING) {
      await t.test(name, () => {
        subject.tell(name);
        freezeOften(subject, name, call);
        const [said, result, errno] = subject.said().split(' ');
        assert.equal(said, name);
        const failed = name.startsWith('clock_nanosleep')
          ? result === '-4'
          : result === '-1' && errno === '4';
        assert.ok(failed, `${name} = ${result}, errno ${errno}`);
      });
    }
  });
}
