import assert from 'node:assert/strict';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { O_RDONLY } from '../../abi/fcntl.js';
import { refusalsOf } from '../../engine/check.js';
import { dump } from '../../engine/dump.js';
import { restore } from '../../engine/restore.js';
import { scratch } from '../../kernel/memory.js';
import { readStat } from '../../kernel/procfs/stat.js';
import { readTree } from '../../kernel/procfs/tree.js';
import { attempt } from '../../kernel/syscall.js';
import { untilGone } from '../../testing/gone.js';
import { CHECKPOINT, RESTORE } from '../../testing/options.js';
import { Subject } from '../../testing/subject.js';
import { decodeMqueues, encodeMqueues } from './mqueue-codec.js';

const PRELUDE = `
import ctypes, os, signal, sys
rt = ctypes.CDLL(None, use_errno=True)
class attr(ctypes.Structure): _fields_ = [('flags', ctypes.c_long), ('maxmsg', ctypes.c_long), ('msgsize', ctypes.c_long), ('curmsgs', ctypes.c_long), ('pad', ctypes.c_long * 4)]
NAME = '/stasis-test-%d' % os.getpid()
def ok(result):
  if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
  return result
def mq(name, flags=os.O_RDWR, mode=0o600, maxmsg=10, msgsize=8192): return ok(rt.mq_open(name.encode(), flags, mode, ctypes.byref(attr(0, maxmsg, msgsize))))
def send(fd, data, priority=0): ok(rt.mq_send(fd, data, len(data), priority))
def receive(fd):
  room = ctypes.create_string_buffer(1 << 16); priority = ctypes.c_uint()
  length = ok(rt.mq_receive(fd, room, len(room), ctypes.byref(priority)))
  return priority.value, room.raw[:length]
def attributes(fd): a = attr(); ok(rt.mq_getattr(fd, ctypes.byref(a))); return a.flags, a.maxmsg, a.msgsize, a.curmsgs
def tell(*words): os.write(1, (' '.join(map(str, words)) + chr(10)).encode())
`;
const WAIT = `
tell('name', NAME, 'ready')
while True: signal.sigtimedwait((), 0.05)
`;

function unlink(name: string): number {
  scratch.bytes.set(Buffer.from(`${name.slice(1)}\0`));
  return attempt('mq_unlink', [scratch.address]);
}

function exists(name: string): boolean {
  scratch.bytes.set(Buffer.from(`${name.slice(1)}\0`));
  const fd = attempt('mq_open', [scratch.address, O_RDONLY, 0, 0]);
  if (fd >= 0) attempt('close', [fd]);
  return fd >= 0;
}

async function trip(
  code: string,
  after: (subject: Subject) => Promise<void>,
  between: (name: string) => void = () => undefined,
): Promise<void> {
  using subject = Subject.python(PRELUDE + code + WAIT);
  const [, name = ''] = await subject.expect(/name (\S+) ready/);
  const directory = join(subject.directory, 'image');
  const members = readTree(subject.pid).map(({ pid }) => pid);
  try {
    dump({ ...CHECKPOINT, pid: subject.pid, directory, afterwards: 'run' });
    for (const _round of [1, 2]) {
      rmSync(directory, { recursive: true });
      dump({ ...CHECKPOINT, pid: subject.pid, directory });
      await untilGone(members);
      between(name);
      restore({ ...RESTORE, directory });
    }
    await after(subject);
  } finally {
    for (const pid of members) attempt('kill', [pid, 9]);
    unlink(name);
  }
}

const QUEUE = `
q = mq(NAME, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o640, 9, 4000)
r = mq(NAME, os.O_RDONLY); w = mq(NAME, os.O_WRONLY); os.dup(w)
os.fchown(q, 12, 34)
for n in range(7): send(w, bytes([n]) * (n * 500), [5, 0, 5, 32767, 1, 0, 5][n])
gone = mq(NAME + '-gone', os.O_RDWR | os.O_CREAT); rt.mq_unlink((NAME + '-gone').encode()); send(gone, b'kept')
only = mq(NAME + '-only', os.O_RDONLY | os.O_CREAT); rt.mq_unlink((NAME + '-only').encode())
def report(*_):
  tell('attributes', attributes(q), attributes(r), os.fstat(q).st_uid, os.fstat(q).st_gid, oct(os.fstat(q).st_mode))
  tell('links', [os.readlink('/proc/self/fd/%d' % fd).replace(NAME, 'N') for fd in (q, r, w, gone, only)])
  got = [receive(r) for _ in range(7)]
  tell('order', [(p, d[0] if d else 0, len(d)) for p, d in got])
  tell('gone', receive(gone)); send(w, b'again'); tell('again', receive(q))
signal.signal(signal.SIGUSR1, report)
`;

async function check(subject: Subject): Promise<void> {
  subject.signal(10);
  await subject.expect(/attributes \(2048, 9, 4000, 7\) \(0, 9, 4000, 7\) 12 34 0o100640/);
  await subject.expect(/links \['N', 'N', 'N', 'N-gone \(deleted\)', 'N-only \(deleted\)'\]/);
  await subject.expect(
    /order \[\(32767, 3, 1500\), \(5, 0, 0\), \(5, 2, 1000\), \(5, 6, 3000\), \(1, 4, 2000\), \(0, 1, 500\), \(0, 5, 2500\)\]/,
  );
  await subject.expect(/gone \(0, b'kept'\)/);
  await subject.expect(/again \(0, b'again'\)/);
}

test('a queue that stays: messages in their order, limits, flags, owner', () => trip(QUEUE, check));
test('a queue that is made anew', () =>
  trip(QUEUE, check, (name) => {
    assert.ok(exists(name));
    unlink(name);
  }));

test('without a right to open it by its name, and with a blocked receiver', async () => {
  await trip(
    `
q = mq(NAME, os.O_RDWR | os.O_CREAT, 0o200); send(q, b'one')
if os.fork() == 0:
  e = mq(NAME + '-e', os.O_RDWR | os.O_CREAT); rt.mq_unlink((NAME + '-e').encode())
  signal.signal(signal.SIGUSR2, lambda *_: None)
  tell('waiting'); tell('child', receive(e))
signal.signal(signal.SIGUSR1, lambda *_: tell('got', receive(q)))
`,
    async (subject) => {
      subject.signal(10);
      await subject.expect(/got \(0, b'one'\)/);
      assert.doesNotMatch(subject.output, /child/);
    },
  );
});

test('a queue that was changed is in the way', async () => {
  using subject = Subject.python(`${PRELUDE}q = mq(NAME, os.O_RDWR | os.O_CREAT); send(q, b'x')${WAIT}`);
  const [, name = ''] = await subject.expect(/name (\S+) ready/);
  const directory = join(subject.directory, 'image');
  dump({ ...CHECKPOINT, pid: subject.pid, directory });
  using other = Subject.python(`${PRELUDE}receive(mq('${name}'))${WAIT}`);
  await other.expect(/ready/);
  assert.throws(() => restore({ ...RESTORE, directory }), /holds 0 of 10 messages .* in the image 1 of 10/);
  assert.ok(!existsSync(`/proc/${subject.pid}`));
  unlink(name);
});

const SIGSTOP = 19;
const SIGCONT = 18;

/** A filter that answers mq_timedsend(2) with EPERM. */
const FILTER = `
import struct
code = [struct.pack('HBBI', 0x20, 0, 0, 0), struct.pack('HBBI', 0x15, 0, 1, 242), struct.pack('HBBI', 6, 0, 0, 0x50001), struct.pack('HBBI', 6, 0, 0, 0x7fff0000)]
text = ctypes.create_string_buffer(b''.join(code))
ok(rt.prctl(38, 1, 0, 0, 0)); ok(rt.prctl(22, 2, ctypes.create_string_buffer(struct.pack('HxxxxxxQ', 4, ctypes.addressof(text)))))
`;

for (const [who, code, signal, pattern] of [
  ['stopped', '\n', SIGSTOP, /messages.*stopped processes/],
  ['under filters that let it put nothing back', FILTER, 0, /take something out and put it back/],
] as const)
  test(`messages of who is ${who} are not taken out`, async () => {
    using subject = Subject.python(
      `${PRELUDE}q = mq(NAME, os.O_RDWR | os.O_CREAT); send(q, b'x')${code}signal.signal(signal.SIGUSR1, lambda *_: tell('left', attributes(q)[3]))${WAIT}`,
    );
    const [, name = ''] = await subject.expect(/name (\S+) ready/);
    attempt('kill', [subject.pid, signal]);
    while (signal === SIGSTOP && readStat(subject.pid).state !== 'T');
    const request = { ...CHECKPOINT, pid: subject.pid, directory: join(subject.directory, 'image') };
    assert.throws(() => dump(request), pattern);
    attempt('kill', [subject.pid, SIGCONT]);
    subject.signal(10);
    await subject.expect(/left 1/);
    unlink(name);
  });

test('a process that has asked to be told of messages is told, with the value it gave', () =>
  trip(
    `
def ask(queue, kind, signo=0, value=0): ok(rt.mq_notify(queue, ctypes.create_string_buffer(struct.pack('<Qii48x', value, signo, kind), 64)))
import struct
q = mq(NAME, os.O_RDWR | os.O_CREAT); other = os.dup(q); silent = mq(NAME + '-s', os.O_RDWR | os.O_CREAT); rt.mq_unlink((NAME + '-s').encode())
r, w = os.pipe()
signal.pthread_sigmask(signal.SIG_BLOCK, [12])
class siginfo(ctypes.Structure): _fields_ = [('signo', ctypes.c_int), ('errno', ctypes.c_int), ('code', ctypes.c_int), ('pad', ctypes.c_int), ('pid', ctypes.c_int), ('uid', ctypes.c_int), ('value', ctypes.c_uint64), ('rest', ctypes.c_byte * 96)]
if os.fork() == 0:
  ask(q, 0, 12, 0x123456789abcdef0); ask(silent, 1); os.write(w, b'x')
  info = siginfo(); ok(rt.sigwaitinfo(ctypes.create_string_buffer(struct.pack('<Q', 1 << 11) + bytes(120)), ctypes.byref(info)))
  tell('told', info.code, hex(info.value)); os._exit(0)
os.read(r, 1)
def report(*_):
  try: ask(silent, 1); tell('free')
  except OSError as e: tell('taken', e.errno)
  send(other, b'x')
signal.signal(signal.SIGUSR1, report)
`,
    async (subject) => {
      subject.signal(10);
      await subject.expect(/taken 16/);
      await subject.expect(/told -3 0x123456789abcdef0/);
    },
  ));

for (const [who, code] of [
  ['stopped', ''],
  ['under filters that let it put nothing back', FILTER],
] as const)
  test(`another of the tree takes the messages of who is ${who}`, () =>
    trip(
      `
r, w = os.pipe(); child = os.fork()
if child == 0:
  q = mq(NAME, os.O_RDONLY | os.O_CREAT | os.O_NONBLOCK); signal.signal(signal.SIGUSR2, lambda *_: tell('got', receive(q), receive(q)))
  extra = mq(NAME, os.O_WRONLY); send(extra, b'one'); send(extra, b'two', 3); os.close(extra)
  ${code.trim().split('\n').join('\n  ')}
  os.write(w, b'x')
  while True: signal.pause()
os.read(r, 1)
if ${code === '' ? 'True' : 'False'}: os.kill(child, 19); os.waitid(os.P_PID, child, os.WSTOPPED)
def go(*_): os.kill(child, 12); os.kill(child, 18)
signal.signal(signal.SIGUSR1, go)
`,
      async (subject) => {
        subject.signal(10);
        await subject.expect(/got \(3, b'two'\) \(0, b'one'\)/);
      },
    ));

test('registrations and messages that others could miss are refused', async () => {
  using subject = Subject.python(`${PRELUDE}signal.signal(10, lambda *_: None)
q = mq(NAME, os.O_RDWR | os.O_CREAT); send(q, b'x')
n = mq(NAME + '-n', os.O_RDWR | os.O_CREAT); rt.mq_unlink((NAME + '-n').encode()); ok(rt.mq_notify(n, (ctypes.c_int * 16)(0, 0, 10, 0))); send(n, b''); ok(rt.mq_notify(n, (ctypes.c_int * 16)(0, 0, 10, 0)))
${WAIT}`);
  const [, name = ''] = await subject.expect(/name (\S+) ready/);
  using other = Subject.python(`${PRELUDE}mq('${name}')${WAIT}`);
  await other.expect(/ready/);
  const request = { ...CHECKPOINT, pid: subject.pid, directory: join(subject.directory, 'image') };
  const reasons = refusalsOf(subject.pid, request).map(({ object, reason }) => `${object}: ${reason}`);
  assert.match(reasons.join('\n'), new RegExp(`pid ${other.pid} \\(python3\\) outside of the tree`));
  assert.match(reasons.join('\n'), /-n \(deleted\).*mq_notify\), and it holds messages/);
  assert.throws(() => dump(request), /outside of the tree/);
  assert.ok(subject.isAlive);
  unlink(name);
});

test('what is in the file is checked', () => {
  const queue = {
    name: 'q',
    deleted: false,
    mode: 0o600,
    uid: 0,
    gid: 0,
    maxmsg: 10,
    msgsize: 10,
    messages: [],
  };
  const file = { id: 1, queue: 0, flags: 2, pos: 0 };
  const good = { queues: [queue], files: [file] };
  assert.deepEqual(decodeMqueues(JSON.parse(Buffer.from(encodeMqueues(good)).toString())), good);
  for (const bad of [
    { version: 2, ...good },
    { version: 1, queues: [{ ...queue, name: 'a/b' }], files: [] },
    { version: 1, queues: [{ ...queue, maxmsg: -1 }], files: [] },
    { version: 1, queues: [queue], files: [{ ...file, queue: 1 }] },
    { version: 1, queues: [{ ...queue, messages: [{ priority: 1 }] }], files: [] },
  ])
    assert.throws(() => decodeMqueues(bad));
});
