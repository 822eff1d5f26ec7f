import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { CHECKPOINT } from '../testing/options.js';
import { Subject } from '../testing/subject.js';
import { dump } from './dump.js';

execFileSync('ip', ['link', 'set', 'lo', 'up']);

/** Queues that are too much to be kept in memory go out at once; then comes something that would pass. */
const SUBJECT = `
import ctypes, os, signal, socket, sys
os.chdir(os.path.dirname(sys.argv[0]))
listener = socket.create_server(('127.0.0.1', 0))
pairs = []
for i in range(40):
  a = socket.create_connection(listener.getsockname()); b = listener.accept()[0]
  a.setblocking(False); pairs.append((a, b))
  try:
    while True: a.send(bytes(65536))
  except BlockingIOError: pass
libc = ctypes.CDLL(None); watch = libc.inotify_init1(0o4000)
libc.inotify_add_watch(watch, b'.', 0x100); open('made', 'w').close()
print('ready', flush=True)
while True: signal.pause()
`;

test('a stream on which something went out is not begun once more', async () => {
  using subject = Subject.python(SUBJECT);
  await subject.expect(/ready/);
  const file = join(subject.directory, 'stream');
  const fd = openSync(file, 'w');
  const to = { kind: 'stream', fd, answers: undefined, stall_ms: 10_000, ready_ms: 10_000 } as const;
  const request = { ...CHECKPOINT, tcpEstablished: true, pid: subject.pid, directory: 'a stream', to };
  assert.throws(() => dump(request), /inotify.*events/);
  closeSync(fd);
  const sent = readFileSync(file, 'latin1');
  assert.ok(sent.length > 1 << 20);
  assert.equal(sent.split('\x89STASIS\n').length - 1, 1);
  assert.ok(subject.isAlive);
});
