import assert from 'node:assert/strict';
import { readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { CHECKPOINT } from '../testing/options.js';
import { Subject } from '../testing/subject.js';
import { dump } from './dump.js';

/** An engine lives long: what it holds of a tree must be gone with the dump, above all with one that is refused. */

function opened(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [`${fd} ${readlinkSync(`/proc/self/fd/${fd}`)}`];
    } catch {
      // The one by which the directory is read.
      return [];
    }
  });
}

test('a dump that is refused late holds nothing of the tree', async () => {
  using subject = Subject.python(`
import array, ctypes, os, signal, socket, sys
os.chdir(os.path.dirname(sys.argv[0]))
a, b = socket.socketpair()
r, w = os.pipe()
a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [w]))])
os.close(w)
memory = os.memfd_create('memory'); os.write(memory, b'x' * 4096)
master, slave = os.openpty()
watch = ctypes.CDLL(None).inotify_init1(0o4000)
ctypes.CDLL(None).inotify_add_watch(watch, b'.', 0x100)
open('made', 'w').close()
print('ready', flush=True)
while True: signal.pause()
`);
  await subject.expect(/ready/);
  const before = opened();
  const directory = join(subject.directory, 'image');
  assert.throws(() => dump({ ...CHECKPOINT, pid: subject.pid, directory }), /inotify.*events/);
  assert.deepEqual(opened(), before);
});
