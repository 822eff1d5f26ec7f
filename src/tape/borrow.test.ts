import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { PTRACE_O_TRACESYSGOOD } from '../abi/ptrace.js';
import { hook } from '../kernel/ffi.js';
import { readMaps } from '../kernel/procfs/maps.js';
import { readStatus } from '../kernel/procfs/status.js';
import * as ptrace from '../kernel/ptrace.js';
import { attempt } from '../kernel/syscall.js';
import { isEventStop, waitFor } from '../kernel/wait.js';
import { Subject } from '../testing/subject.js';
import { type Borrowed, borrow, giveBack } from './borrow.js';
import type { Lender } from './chain.js';
import { findGadgets } from './gadgets.js';
import { playOne } from './play.js';
import { Tape } from './tape.js';

/** Raw calls by ctypes: Python's own wrappers would repeat a call that returns EINTR, and hide it. */
const BLOCKED_CALL = `
import ctypes, time, sys
libc = ctypes.CDLL(None, use_errno=True)
class timespec(ctypes.Structure): _fields_ = [('s', ctypes.c_long), ('n', ctypes.c_long)]
print('ready', flush=True)
start = time.monotonic()
if sys.argv[1] == 'nanosleep': result = libc.nanosleep(ctypes.byref(timespec(1, 0)), None)
else: result = libc.poll(None, 0, 1000)
print('done', result, ctypes.get_errno(), time.monotonic() - start >= 1, flush=True)
time.sleep(1000)
`;

function stop(pid: number): void {
  ptrace.seize(pid, PTRACE_O_TRACESYSGOOD);
  ptrace.interrupt(pid);
  assert.ok(isEventStop(waitFor(pid)));
}

/** Of one that is stopped. */
function lenderOf(pid: number): Lender {
  const maps = readMaps(pid);
  const gadgets = findGadgets(pid, maps);
  assert.ok(gadgets);
  return {
    tid: pid,
    inside: { pid, tid: pid },
    name: 'subject',
    registers: ptrace.getRegisters(pid),
    mask: ptrace.getSignalMask(pid),
    xstate: ptrace.getXstate(pid),
    gadgets,
    workspace: { address: 0x1000_0000_0000n, size: 65536 },
    chain: maps.find(({ path }) => path === '[stack]')?.start ?? 0n,
    stopSignal: 23,
  };
}

function borrowOne(pid: number): Borrowed {
  stop(pid);
  const [borrowed] = borrow([lenderOf(pid)]);
  assert.ok(borrowed);
  return borrowed;
}

function traces(pid: number): string[] {
  return [readFileSync(`/proc/${pid}/maps`, 'utf8'), readdirSync(`/proc/${pid}/fd`).join()];
}

for (const call of ['nanosleep', 'poll'])
  test(`a thread in ${call} is borrowed a hundred times and never returns early`, async () => {
    using subject = Subject.python(BLOCKED_CALL.replace('sys.argv[1]', `'${call}'`));
    await subject.expect(/ready/);
    for (let i = 0; i < 100; i++) {
      const borrowed = borrowOne(subject.pid);
      const tape = new Tape('who are you');
      const pid = tape.call('getpid', []);
      assert.equal(playOne(borrowed.actor, tape).result(pid), BigInt(subject.pid));
      giveBack([borrowed]);
      ptrace.detach(subject.pid);
    }
    await subject.expect(/done 0 0 True/);
  });

test('what a tape opened is gone after it was given back', async () => {
  using subject = Subject.python("print('ready', flush=True)\nimport time\nwhile True: time.sleep(0.001)");
  await subject.expect(/ready/);
  const before = traces(subject.pid);
  const borrowed = borrowOne(subject.pid);
  const tape = new Tape('open and close');
  const fd = tape.call('eventfd2', [0, 0]);
  tape.call('close', [fd]);
  playOne(borrowed.actor, tape);
  giveBack([borrowed]);
  ptrace.detach(subject.pid);
  assert.deepEqual(traces(subject.pid), before);
});

test('a borrowed thread whose borrower is killed finds its way home', async () => {
  using subject = Subject.python(
    "print('ready', flush=True)\nimport time\nn = 0\nwhile True:\n  time.sleep(0.001)\n  n += 1\n  if n % 100 == 0: print('lap', n, flush=True)",
  );
  await subject.expect(/ready/);
  const before = traces(subject.pid);
  const thief = fileURLToPath(new URL('../testing/die-borrowing.js', import.meta.url));
  for (const where of ['mapped', 'playing', 'played']) {
    const { signal, stderr } = spawnSync(process.execPath, [thief, `${subject.pid}`, where], {
      encoding: 'utf8',
    });
    assert.equal(signal, 'SIGKILL', stderr);
    const laps = subject.output.length;
    await subject.expect(new RegExp(`[^]{${laps},}lap`));
    assert.deepEqual(traces(subject.pid), before, where);
  }
});

/** Does `action`, with an exception before its `at`-th kernel call; answers whether it came to that. */
function failAt(at: number, action: () => void): boolean {
  let calls = 0;
  hook.beforeCall = () => {
    if (calls++ === at) throw new Error('injected');
  };
  try {
    action();
  } catch (error) {
    assert.match(String(error), /injected/);
  } finally {
    hook.beforeCall = undefined;
  }
  return calls > at;
}

for (const state of ['running', 'stopped'])
  test(`a ${state} thread is home again wherever its borrower fails, before it is let go`, async () => {
    using subject = Subject.python("print('ready', flush=True)\nimport time\ntime.sleep(1000)");
    const { pid } = subject;
    await subject.expect(/ready/);
    if (state === 'stopped') {
      attempt('kill', [pid, SIGSTOP]);
      while (readStatus(pid).state !== 'T');
    }
    const before = traces(pid);
    const lent: Borrowed[] = [];
    const steps = { borrow: (lender: Lender) => lent.push(...borrow([lender])), give: () => giveBack(lent) };
    for (const failing of ['borrow', 'give'] as const)
      for (let at = 0, isOver = false; !isOver; at++) {
        stop(pid);
        const lender = lenderOf(pid);
        const registers = ptrace.getRegisters(pid);
        if (failing === 'give') steps.borrow(lender);
        isOver = !failAt(at, () => steps[failing](lender));
        if (failing === 'borrow' && lent.length > 0) steps.give();
        lent.length = 0;
        const found = [ptrace.getRegisters(pid), ptrace.getSignalMask(pid), traces(pid)];
        assert.deepEqual(found, [registers, lender.mask, before], `${failing}, call ${at}`);
        ptrace.detach(pid);
      }
  });

const SIGSTOP = 19;

const THREADS = `
import threading, time
counts = [0] * 4
def count(index):
  while True:
    time.sleep(0.001)
    counts[index] += 1
for index in range(4): threading.Thread(target=count, args=(index,), daemon=True).start()
print('ready', flush=True)
laps = 0
while True:
  time.sleep(0.001)
  if min(counts) > 100 * laps:
    laps += 1
    print('lap', laps, flush=True)
`;

test('guests and their host find their ways home from wherever their borrower is killed', async () => {
  using subject = Subject.python(THREADS);
  await subject.expect(/ready/);
  const before = traces(subject.pid);
  const thief = fileURLToPath(new URL('../testing/die-borrowing.js', import.meta.url));
  const leaving = Array.from({ length: 30 }, (_, calls) => ['leaving', String(calls)]);
  for (const where of [['mapped'], ['playing'], ['played'], ...leaving]) {
    const { signal, stderr } = spawnSync(process.execPath, [thief, `${subject.pid}`, ...where], {
      encoding: 'utf8',
    });
    assert.equal(signal, 'SIGKILL', stderr);
    const laps = subject.output.length;
    await subject.expect(new RegExp(`[^]{${laps},}lap`));
    assert.deepEqual(traces(subject.pid), before, where.join(' '));
  }
});
