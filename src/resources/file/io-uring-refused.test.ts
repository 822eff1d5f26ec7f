import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { refusalsOf } from '../../engine/check.js';
import { dump } from '../../engine/dump.js';
import { restore } from '../../engine/restore.js';
import {
  checkpointOptions,
  gone,
  inPidNamespace,
  restoreRequest,
  started,
  withImage,
} from '../memory/testing/trial.js';
import { URING } from './testing/uring.js';

/** A program whose ring cannot be saved: it is refused for `reason`, and goes on as if nothing had been. */
async function refused(build: string, reason: RegExp, check: string): Promise<void> {
  await withImage(`${URING}\n${build}`, check, async (subject, directory) => {
    assert.throws(() => dump(checkpointOptions(subject.pid, directory)), reason);
    subject.signal(10);
    await subject.expect(/checked/);
  });
}

const REFUSED: readonly (readonly [name: string, build: string, reason: RegExp])[] = [
  ['polled by the kernel', 'ring = Ring(8, SQPOLL)', /a thread of the kernel polls it/],
  ['that poll devices', 'ring = Ring(8, IOPOLL)', /it polls devices/],
  [
    'with provided buffers',
    `ring = Ring(8)
room = new(1); call(427, ring.fd, 22, (ctypes.c_uint64 * 5)(room, 8 | 1 << 32, 0, 0, 0), 1)`,
    /buffers are provided/,
  ],
  ['with personalities', 'ring = Ring(8); call(427, ring.fd, 9, 0, 0)', /credentials are registered/],
  [
    'with restrictions',
    `ring = Ring(8, R_DISABLED)
call(427, ring.fd, 11, (ctypes.c_uint8 * 16)(1, 0, 0), 1)`,
    /it is restricted/,
  ],
  [
    'with a registered file that nobody has open',
    `ring = Ring(8); r, w = os.pipe(); call(427, ring.fd, 2, (ctypes.c_int32 * 1)(r), 1); os.close(r)`,
    /registered file 0 is open in no process/,
  ],
  [
    'with a buffer whose memory was unmapped',
    `ring = Ring(8); room = new(2)
call(427, ring.fd, 0, (ctypes.c_uint64 * 2)(room, 2 * PAGE), 1); libc.munmap(room, 2 * PAGE)
assert new(2, at=room) == room; put(room, b'other')`,
    /registered buffer 0 is memory that the program has unmapped/,
  ],
  [
    'with a buffer of huge pages in the middle of which there is other memory',
    `ring = Ring(8); size = 6 << 20; room = (new(size // PAGE) + (1 << 21) - 1) & -(1 << 21)
libc.madvise(ctypes.c_void_p(room), 4 << 20, 14); put(room, bytes(4 << 20))
call(427, ring.fd, 0, (ctypes.c_uint64 * 2)(room, 4 << 20), 1); libc.munmap(room + 100 * PAGE, PAGE)
assert new(1, at=room + 100 * PAGE) == room + 100 * PAGE; put(room + 100 * PAGE, b'other')`,
    /registered buffer 0 is memory that the program has unmapped/,
  ],
  [
    'of another thread alone',
    `import threading
stay = threading.Event(); made = threading.Event()
def work():
  global ring; ring = Ring(8, SINGLE); made.set(); stay.wait()
threading.Thread(target=work, daemon=True).start(); made.wait()`,
    /the one thread that may submit to it/,
  ],
  [
    'that are known by a number only',
    `ring = Ring(8); other = Ring(8); call(427, other.fd, 20, (ctypes.c_uint32 * 4)(0, 0, other.fd, 0), 1)
os.close(other.fd); libc.munmap(other.ring, PAGE); libc.munmap(other.sqes, PAGE)`,
    /registered ring descriptors.*has no descriptor any more/,
  ],
  [
    'of which a part is mapped',
    'ring = Ring(4096); libc.munmap(ring.sqes + 8 * PAGE, PAGE)',
    /it is only a part of an io_uring/,
  ],
  [
    'that are mapped and closed',
    'ring = Ring(8); os.close(ring.fd)',
    /an io_uring that nobody of the tree has a descriptor of/,
  ],
];

const WAITING = `import socket
ring = Ring(8); other = Ring(8); r, w = os.pipe(); a, b = socket.socketpair(); c, d = socket.socketpair(); LINK, RECV, SEND = 4, 27, 26
page = new(1); os.mkfifo(name + 'fifo'); path = ctypes.create_string_buffer((name + 'fifo').encode())
def one(ring, *want):
  got = []
  while len(got) < len(want): ring.enter(0, 1); got += ring.take()
  assert sorted(got) == sorted(want), (got, want)
`;
type OnTheirWay = readonly [name: string, build: string, reason: RegExp, after: string];
const ON_THEIR_WAY: readonly OnTheirWay[] = [
  [
    'of a worker',
    'ring.put(18, -100, ctypes.addressof(path), tag=0x2a, flags=ASYNC); ring.enter(1); time.sleep(0.1)',
    /io_uring.*: OPENAT \(user_data 0x2a\): a worker of thread \d+ is at it/,
    "os.open(name + 'fifo', os.O_RDWR); ring.enter(0, 1); assert ring.take()[0][0] == 0x2a",
  ],
  [
    'with others behind them',
    `ring.put(RECV, a.fileno(), page, 9, tag=7, flags=LINK); ring.put(SEND, c.fileno(), page, 4, tag=8); ring.enter(2)`,
    /RECV \(user_data 0x7\): others are linked behind it/,
    "b.send(b'word'); one(ring, (7, 4), (8, 4)); assert d.recv(9) == b'word'",
  ],
  [
    'that wait for a futex',
    'ring.put(51, 2|128, page, 0, 0, 9); put(ring.sqes + 48, struct.pack("<Q", 0xffffffff)); ring.enter(1)',
    /1 of its operations are on their way elsewhere/,
    '',
  ],
  [
    'of files that are closed',
    'ring.put(READ, r, at, 4, 2**64-1, 3); ring.enter(1); os.close(r)',
    /READ \(user_data 0x3\): its file is open in its process no more/,
    "os.write(w, b'word'); one(ring, (3, 4))",
  ],
  [
    'whose vectors are no more',
    `put(page, struct.pack('<QQQQ', at, 2, at + 2, 2)); ring.put(1, r, page, 2, 2**64-1, 4); ring.enter(1); put(page, bytes(32))`,
    /READV \(user_data 0x4\): its vectors, or its message header, are not in memory any more/,
    "os.write(w, b'word'); one(ring, (4, 4)); assert data.raw[:4] == b'word'",
  ],
  [
    'of several threads',
    `import threading
stay = threading.Event(); made = threading.Event()
def work(): ring.put(READ, r, at, 4, 2**64-1, 5); ring.enter(1); made.set(); stay.wait()
threading.Thread(target=work, daemon=True).start(); made.wait(); ring.put(POLL, r, tag=6, op_flags=1); ring.enter(1)`,
    /operations that several threads have submitted are on their way/,
    '',
  ],
  [
    'of two rings',
    `for n, each in enumerate((ring, other)): each.put(RECV, a.fileno(), page, 9, tag=7 + n, flags=LINK); each.put(tag=8); each.enter(2)`,
    /RECV \(user_data 0x7\): others are linked.*\n?.*RECV \(user_data 0x8\): others are linked/,
    '',
  ],
];

if (inPidNamespace(import.meta.url)) {
  for (const [name, build, reason] of REFUSED)
    test(`rings ${name} are refused before the freeze`, async () => {
      await refused(build, reason, '');
    });

  // Where there is one CPU, it is all of them.
  test('rings whose workers are kept to a CPU are refused', { skip: cpus().length === 1 }, async () => {
    const build = 'ring = Ring(8); ring.many(1); call(427, ring.fd, 17, (ctypes.c_uint64 * 1)(1), 8)';
    await refused(build, /workers of io_uring .*: those of thread \d+ are kept to some of the CPUs/, '');
  });

  test('rings that a process outside of the tree has as well are refused before the freeze', async () => {
    await withImage(
      `${URING}
ring = Ring(8); child = os.fork()
if child == 0: os.setsid(); print('child %d.' % os.getpid(), flush=True); os.read(os.pipe()[0], 1)`,
      'works(ring); os.kill(child, 9); os.wait()',
      async (subject, directory) => {
        const [, child] = await subject.expect(/child (\d+)\./);
        const outsider = new RegExp(`pid ${subject.pid}, which is not of the tree, has it open as well`);
        assert.throws(() => dump(checkpointOptions(Number(child), directory)), outsider);
        subject.signal(10);
        await subject.expect(/checked/);
      },
    );
  });

  test('a ring that an outsider gets after the look is refused in the freeze', async () => {
    using subject = await started(`${URING}\nring = Ring(8)`, 'works(ring)');
    const directory = mkdtempSync(join(tmpdir(), 'stasis-uring-'));
    const fifo = join(directory, 'fifo');
    const taker = `import ctypes, os, sys
call = ctypes.CDLL(None).syscall; os.mkfifo(sys.argv[1]); print(flush=True); open(sys.argv[1]).read()
pidfd = call(434, ${subject.pid}, 0)
for fd in os.listdir('/proc/${subject.pid}/fd'):
  if 'io_uring' in os.readlink('/proc/${subject.pid}/fd/' + fd): call(438, pidfd, int(fd), 0)
sys.stdin.read()`;
    const outsider = spawn('/usr/bin/python3', ['-c', taker, fifo], { stdio: ['pipe', 'pipe', 'inherit'] });
    const phase = (name: string) => {
      if (name !== 'freeze') return;
      writeFileSync(fifo, '');
      while (!linksOf(outsider.pid ?? 0).includes('anon_inode:[io_uring]'));
    };
    try {
      await once(outsider.stdout, 'data');
      const options = { ...checkpointOptions(subject.pid, join(directory, 'image')), hooks: { phase } };
      mkdirSync(options.directory);
      assert.throws(() => dump(options), /which is not of the tree, has it open as well/);
      subject.signal(10);
      await subject.expect(/checked/);
    } finally {
      outsider.stdin.end();
      rmSync(directory, { recursive: true, force: true });
    }
  });

  for (const [name, build, reason, after] of ON_THEIR_WAY)
    test(`operations ${name} are refused by name`, async () => {
      await refused(`${WAITING}${build}`, reason, after);
    });

  test('a check says before what lasts, and does not mind what passes', async () => {
    const [, worker = '', , ended = ''] = ON_THEIR_WAY[0] ?? [];
    const [, linked = ''] = ON_THEIR_WAY[1] ?? [];
    using passing = await started(`${URING}${WAITING}${worker}`, ended);
    assert.deepEqual(refusalsOf(passing.pid, checkpointOptions(passing.pid, '')), []);
    using lasting = await started(`${URING}${WAITING}${linked}`);
    const [refusal] = refusalsOf(lasting.pid, checkpointOptions(lasting.pid, ''));
    assert.match(refusal?.object ?? '', /descriptor \d+ .*io_uring/);
    assert.match(refusal?.reason ?? '', /RECV \(user_data 0x7\): others are linked behind it/);
  });

  test('a ring whose last operation ends while it is waited for is saved', async () => {
    await withImage(
      `${URING}
os.mkfifo(name + 'fifo'); path = ctypes.create_string_buffer((name + 'fifo').encode())
ring = Ring(8); ring.put(18, -100, ctypes.addressof(path), tag=1, flags=ASYNC); ring.enter(1)`,
      '(tag, r), = ring.take(); assert tag == 1 and os.read(r, 9) == b"word"; works(ring)',
      async (subject, directory) => {
        let looks = 0;
        const phase = (name: string) => {
          if (name !== 'look' || ++looks !== 2) return;
          writeFileSync(join(subject.directory, 'filefifo'), 'word');
          while (!isDone(subject.pid));
        };
        dump({ ...checkpointOptions(subject.pid, directory), hooks: { phase } });
        await gone(subject.pid);
        restore(restoreRequest(directory));
        subject.signal(10);
        await subject.expect(/checked/);
      },
    );
  });
}

function linksOf(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      // Closed meanwhile.
      return '';
    }
  });
}

/** Has a completion been posted to its ring? */
function isDone(pid: number): boolean {
  return readdirSync(`/proc/${pid}/fdinfo`).some((fd) =>
    /^CqTail:\t1$/m.test(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8')),
  );
}
