import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { core_entrySchema, sa_entrySchema } from '../image/schema/index.js';
import type { RestoreTask } from '../resources/contract.js';
import { untilGone } from '../testing/gone.js';
import { CHECKPOINT, RESTORE } from '../testing/options.js';
import { Subject } from '../testing/subject.js';
import { dump } from './dump.js';
import { finalSignalOf } from './restore/final-signal.js';
import { restore } from './restore.js';

/** Catches all that tapes end by, as a Go program does; one of them is pending, blocked, in each of its threads. */
const CATCHES = `
import os, signal, threading
def tell(*words): os.write(1, (' '.join(map(str, words)) + chr(10)).encode())
ENDS = (signal.SIGURG, signal.SIGWINCH, signal.SIGCHLD)
for s in ENDS: signal.signal(s, lambda s, _: tell('caught', s))
signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
hold = threading.Event()
def work():
  signal.pthread_kill(threading.get_ident(), signal.SIGURG); started.release(); hold.wait()
started = threading.Semaphore(0)
for _ in range(3): threading.Thread(target=work, daemon=True).start()
for _ in range(3): started.acquire()
signal.pthread_kill(threading.get_ident(), signal.SIGURG)
def unblock(*_):
  tell('now'); signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS); tell('pending', sorted(signal.sigpending()))
signal.signal(signal.SIGUSR1, unblock)
tell('ready')
while True: signal.sigtimedwait((), 0.05)
`;

test('a program that catches every signal a tape ends by, one of which is pending', async () => {
  using subject = Subject.python(CATCHES);
  await subject.expect(/ready/);
  const directory = join(subject.directory, 'image');
  dump({ ...CHECKPOINT, pid: subject.pid, directory, afterwards: 'run' });
  dump({ ...CHECKPOINT, pid: subject.pid, directory, overwrite: true });
  await untilGone([subject.pid]);
  restore({ ...RESTORE, directory });
  subject.signal(10);
  await subject.expect(/now\ncaught 23\npending \[\]/);
  assert.equal(subject.output.match(/caught/g)?.length, 1);
});

const SIG_DFL = 0n;
const SIG_IGN = 1n;

/** A task whose process ignores some signals, and does what is usual on all others. */
function taskOf(isLeader: boolean, ignored: readonly number[] = []): RestoreTask {
  const signals = Array.from({ length: 64 }, (_, index) => index + 1).filter(
    (signal) => signal !== 9 && signal !== 19,
  );
  const sigactions = signals.map((signal) =>
    create(sa_entrySchema, {
      sigaction: ignored.includes(signal) ? SIG_IGN : SIG_DFL,
      flags: 0n,
      restorer: 0n,
      mask: 0n,
    }),
  );
  const leaderCore = create(core_entrySchema, {
    mtype: 1,
    tc: { taskState: 1, exitCode: 0, personality: 0, flags: 0, blkSigset: 0n, comm: '', sigactions },
  });
  const core = isLeader
    ? leaderCore
    : create(core_entrySchema, { mtype: 1, threadCore: { futexRla: 0n, futexRlaLen: 0 } });
  return { isLeader, core, leaderCore } as RestoreTask;
}

test('threads stop by signals that their leader does not throw away as it sets the actions', () => {
  assert.equal(finalSignalOf(taskOf(true)), 23);
  assert.equal(finalSignalOf(taskOf(false)), 16);
  assert.equal(finalSignalOf(taskOf(false, [16, 30])), 25);
  // One has to be taken.
  assert.equal(finalSignalOf(taskOf(false, [10, 12, 16, 17, 18, 23, 25, 28, 30])), 23);
});
