import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { readSyscall } from '../kernel/procfs/scalars.js';
import { attempt, sleep_us } from '../kernel/syscall.js';
import { CHECKPOINT, RESTORE } from '../testing/options.js';
import { Subject } from '../testing/subject.js';
import { dump } from './dump.js';
import { Frozen } from './freeze.js';
import { restore } from './restore.js';
import { monotonic_ns } from './waits.js';

/**
 * Waits that go on with what remains of their time. Every program says when (CLOCK_MONOTONIC, in ms) its wait of
 * LENGTH_MS began and ended: never earlier than that, and not later than that by more than a machine with other things
 * to do explains. A wait that was made again whole would take half as long again.
 */
const LENGTH_MS = 6000;
const SLACK_MS = 2500;

const PROGRAM = `
import ctypes, os, struct, time
c = ctypes.CDLL(None, use_errno=True)
buf = lambda f, *v: ctypes.create_string_buffer(struct.pack(f, *v))
r, w = os.pipe(); fds = buf('ihh', r, 1, 0); ep = c.epoll_create1(0); events = ctypes.create_string_buffer(64)
length = lambda: buf('qq', ${LENGTH_MS / 1000}, 0); word = buf('i', 0); request = length(); rest = buf('qq', 0, 0)
calls = {
 'poll': lambda: c.poll(fds, 1, ${LENGTH_MS}),
 'epoll_wait': lambda: c.epoll_wait(ep, events, 1, ${LENGTH_MS}),
 'epoll_pwait': lambda: c.epoll_pwait(ep, events, 1, ${LENGTH_MS}, None),
 'nanosleep': lambda: c.syscall(35, request, None),
 'nanosleep_same': lambda: c.syscall(35, request, request),
 'nanosleep_rest': lambda: c.syscall(35, request, rest),
 'clock_nanosleep': lambda: c.clock_nanosleep(1, 0, request, None),
 'futex': lambda: c.syscall(202, word, 128, 0, request),
 'ppoll': lambda: c.ppoll(fds, 1, request, None),
 'select': lambda: c.select(0, None, None, None, buf('qq', ${LENGTH_MS / 1000}, 0)),
}
call = calls[NAME.removesuffix('_thread')]
if NAME.endswith('_thread'):
  import threading
  whole_call = call; answer = []
  def work(): answer.extend([whole_call(), ctypes.get_errno()])
  def call():
    thread = threading.Thread(target=work); thread.start(); thread.join(); ctypes.set_errno(answer[1])
    return answer[0]
now = lambda: time.clock_gettime(time.CLOCK_MONOTONIC) * 1000
began = now()
os.write(1, b'began\\n')
result = call(); ended = now()
whole = struct.unpack('qq', request.raw[:16]) == (${LENGTH_MS / 1000}, 0) or NAME.endswith('same')
os.write(1, b'ended %d %d %d %d\\n' % (ended - began, result, ctypes.get_errno(), whole))
time.sleep(1000)
`;

const CALLS: readonly (readonly [string, number, number])[] = [
  ['poll', 0, 0], ['epoll_wait', 0, 0], ['epoll_pwait', 0, 0],
  ['nanosleep', 0, 0], ['nanosleep_same', 0, 0], ['nanosleep_rest', 0, 0], ['clock_nanosleep', 0, 0],
  ['poll_thread', 0, 0], ['nanosleep_thread', 0, 0], ['epoll_wait_thread', 0, 0],
  ['futex', -1, 110], ['ppoll', 0, 0], ['select', 0, 0],
]; // biome-ignore format: a family a line

interface Waiter {
  readonly subject: Subject;
  readonly name: string;
  readonly result: number;
  readonly errno: number;
}

async function start([name, result, errno]: readonly [string, number, number]): Promise<Waiter> {
  const subject = Subject.python(`NAME = '${name}'\n${PROGRAM}`);
  await subject.expect(/^began$/m);
  while (readSyscall(subject.pid).kind !== 'syscall') sleep_us(100);
  return { subject, name, result, errno };
}

async function checkEnd({ subject, name, result, errno }: Waiter, slack_ms: number): Promise<void> {
  const [, took, ...others] = await subject.expect(/^ended (\d+) (-?\d+) (\d+) (\d)$/m);
  assert.deepEqual(others.map(Number), [result, errno, 1], name);
  assert.ok(Number(took) >= LENGTH_MS, `${name} took ${took} ms of ${LENGTH_MS}`);
  assert.ok(Number(took) < LENGTH_MS + slack_ms, `${name} took ${took} ms of ${LENGTH_MS}`);
}

/** Until so many milliseconds after `start_ns`; the test's subjects wait meanwhile. */
function waitUntil(start_ns: bigint, offset_ms: number): void {
  const left_ns = start_ns + BigInt(offset_ms) * 1_000_000n - monotonic_ns();
  if (left_ns > 0n) sleep_us(Number(left_ns / 1000n));
}

/** Start all, let `act` have its way with them, and see how long each waited. */
async function trial(
  act: (waiters: readonly Waiter[], start_ns: bigint) => void,
  slack_ms = SLACK_MS,
): Promise<void> {
  const start_ns = monotonic_ns();
  const waiters = await Promise.all(CALLS.map(start));
  try {
    act(waiters, start_ns);
    // Whoever was brought back after the end of its wait can only be late by that.
    const late_ms = Math.max(0, Number((monotonic_ns() - start_ns) / 1_000_000n) - LENGTH_MS);
    const ends = await Promise.allSettled(waiters.map((waiter) => checkEnd(waiter, slack_ms + late_ms)));
    const failures = ends.flatMap((end) => (end.status === 'rejected' ? [end.reason] : []));
    assert.deepEqual(failures.map(String), []);
  } finally {
    for (const { subject } of waiters) subject[Symbol.dispose]();
  }
}

function move({ subject, name }: Waiter): void {
  const directory = join(subject.directory, `image-${name}`);
  dump({ ...CHECKPOINT, pid: subject.pid, directory });
  const WNOHANG = 1;
  while (attempt('kill', [subject.pid, 0]) === 0) attempt('wait4', [subject.pid, 0, WNOHANG, 0]);
  restore({ ...RESTORE, directory });
}

function thawOnce({ subject }: Waiter): void {
  using frozen = Frozen.freeze(subject.pid, 5000);
  assert.ok(frozen.threads.length > 0);
}

test('a restored wait goes on with what remains', () =>
  trial((waiters, start_ns) => {
    waitUntil(start_ns, LENGTH_MS * 0.6);
    for (const waiter of waiters) move(waiter);
  }));

// What passed before the thaw is known of some calls only.
const THAWED_AT = 0.2;
test('a wait that was thawed before is known for what it is', () =>
  trial(
    (waiters, start_ns) => {
      waitUntil(start_ns, LENGTH_MS * THAWED_AT);
      for (const waiter of waiters) thawOnce(waiter);
      waitUntil(start_ns, LENGTH_MS * 0.7);
      for (const waiter of waiters) move(waiter);
    },
    SLACK_MS + LENGTH_MS * THAWED_AT,
  ));

test('a wait that is frozen again and again ends in time', () =>
  trial((waiters, start_ns) => {
    for (let round = 1; round <= 3; round++) {
      waitUntil(start_ns, (LENGTH_MS * round) / 5);
      for (const { subject, name } of waiters) {
        const directory = join(subject.directory, `image-${name}-${round}`);
        dump({ ...CHECKPOINT, afterwards: 'run', pid: subject.pid, directory });
      }
    }
  }));

test('nobody is woken early by any number of thaws', () =>
  trial((waiters, start_ns) => {
    while (monotonic_ns() - start_ns < BigInt(LENGTH_MS * 0.7) * 1_000_000n)
      for (const waiter of waiters) thawOnce(waiter);
  }));

/** Waits of 20 ms, one after the other, that a thread ends early now and then: which one is it that the freeze meets? */
const LOOP = `
import os, select, threading, time, random
event = os.eventfd(0, os.EFD_NONBLOCK); epoll = select.epoll(); epoll.register(event, select.EPOLLIN)
def disturb():
  while True:
    time.sleep(random.random() / 50); os.eventfd_write(event, 1)
threading.Thread(target=disturb, daemon=True).start()
os.write(1, b'began\\n'); n = 0
while True:
  began = time.clock_gettime_ns(1)
  found = epoll.poll(0.02)
  took = time.clock_gettime_ns(1) - began
  if found: os.eventfd_read(event)
  elif took < 20000000: os.write(1, b'early %d\\n' % took)
  n += 1
  if n % 100 == 0: os.write(1, b'%d\\n' % n)
`;

test('a wait is not taken for the one before it', async () => {
  using subject = Subject.python(LOOP);
  await subject.expect(/^began$/m);
  const deadline_ns = monotonic_ns() + 3_000_000_000n;
  while (monotonic_ns() < deadline_ns) {
    using frozen = Frozen.freeze(subject.pid, 5000);
    assert.equal(frozen.threads.length, 2);
  }
  await subject.expect(/^100$/m);
  assert.doesNotMatch(subject.output, /early|Error/);
});
