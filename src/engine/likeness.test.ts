import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { TaskMembers } from '../kernel/bpf/tasks.js';
import { untilGone } from '../testing/gone.js';
import { CHECKPOINT, RESTORE } from '../testing/options.js';
import { Subject } from '../testing/subject.js';
import { dump } from './dump.js';
import { restore } from './restore.js';

/** Why the kernel does not show its tasks here, if so. */
function unseen(): string | undefined {
  try {
    using _ = new TaskMembers(['clear_child_tid']);
    return undefined;
  } catch (error) {
    return `the kernel does not show its tasks: ${error instanceof Error ? error.message : error}`;
  }
}

const SKIP = unseen() ?? false;

/** Most threads are alike, and some are each different in something that only they themselves are told. */
const THREADS = `
import ctypes, os, signal, threading
libc = ctypes.CDLL(None, use_errno=True)
signal.pthread_sigmask(signal.SIG_BLOCK, [10])
def prctl(option, argument=0): return libc.prctl(option, argument, 0, 0, 0)
def ask(option):
  word = ctypes.c_ulong(); prctl(option, ctypes.byref(word)); return word.value
class Stack(ctypes.Structure): _fields_ = [('sp', ctypes.c_void_p), ('flags', ctypes.c_int), ('size', ctypes.c_size_t)]
keep = []
def alternate(flags):
  keep.append(ctypes.create_string_buffer(65536))
  stack = Stack(ctypes.addressof(keep[-1]), flags, 65536)
  assert libc.sigaltstack(ctypes.byref(stack), None) == 0
nodes = ctypes.c_ulong(1)
changes = {
  3: lambda: prctl(1, 12),                              # PR_SET_PDEATHSIG
  4: lambda: prctl(29, 70000),                          # PR_SET_TIMERSLACK
  5: lambda: alternate(0),
  6: lambda: alternate(ctypes.c_int(1 << 31).value),    # SS_AUTODISARM
  7: lambda: libc.syscall(122, 1234),                   # setfsuid
  8: lambda: libc.syscall(238, 1, ctypes.byref(nodes), 64),  # set_mempolicy
  10: lambda: prctl(38, 1),                             # PR_SET_NO_NEW_PRIVS
}
def state():
  stack = Stack(); libc.sigaltstack(None, ctypes.byref(stack))
  mode = ctypes.c_int(); libc.syscall(239, ctypes.byref(mode), None, 0, 0, 0)
  return [ask(2), prctl(30), stack.sp, stack.flags, stack.size, libc.syscall(122, -1), libc.syscall(123, -1), mode.value, prctl(39), prctl(27), ask(40)]
COUNT = 16
barrier = threading.Barrier(COUNT + 1)
seen = [None] * COUNT
def work(index):
  changes.get(index, lambda: None)()
  while True:
    seen[index] = state(); barrier.wait(); barrier.wait()
for index in range(COUNT): threading.Thread(target=work, args=(index,), daemon=True).start()
def tell():
  barrier.wait(); os.write(1, (str(seen) + chr(10)).encode())
tell()
while True: signal.sigwait([10]); barrier.wait(); tell()
`;

test('threads that are alike are asked once, and each is as it was', { skip: SKIP }, async () => {
  using subject = Subject.python(THREADS);
  const [before = ''] = await subject.expect(/^\[\[.*\]\]\n/);
  assert.ok(new Set(before.match(/\[[^[]*?\]/g)).size > 6, before);
  const directory = join(subject.directory, 'image');
  const running = dump({ ...CHECKPOINT, pid: subject.pid, directory, afterwards: 'run' });
  assert.equal(running.threads, 17);
  // All are stopped, and eight are borrowed: the leader, six that differ, and one of those that do not.
  assert.ok(running.stops < 2 * running.threads, `${running.stops} stops`);
  dump({ ...CHECKPOINT, pid: subject.pid, directory, overwrite: true });
  await untilGone([subject.pid]);
  restore({ ...RESTORE, directory });
  subject.signal(10);
  await subject.expect(/\n\[\[.*\]\]\n/);
  const [first, second] = readFileSync(subject.outputFile, 'utf8').split('\n');
  assert.equal(second, first);
});

test('members of the threads of a process', { skip: SKIP }, () => {
  using members = new TaskMembers(['clear_child_tid', 'pdeath_signal', 'sas_ss_size', 'sysvsem.undo_list']);
  const threads = members.read(process.pid);
  assert.ok(threads.size > 1);
  const own = threads.get(process.pid);
  assert.equal(own?.length, 4);
  assert.notEqual(own?.[0], 0n);
  assert.deepEqual(own?.slice(1, 3), [0n, 0n]);
  assert.throws(() => new TaskMembers(['no_such_member']), /has no no_such_member/);
  assert.throws(() => new TaskMembers(['comm']), /has no number comm/);
  assert.throws(() => new TaskMembers(Array.from({ length: 60 }, () => 'policy')), /too many/);
});
