import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { acknowledged, CLIENT, end, SKIP_INTEGRATION, survive } from '../testing/servers.js';
import { Subject } from '../testing/subject.js';

/**
 * Redis: threads, jemalloc, an append-only file, children that save. Its clients on the Unix socket are of its tree, those
 * over TCP are not, and never learn of it.
 */
const WRITER = `${CLIENT}
class Redis:
  def __init__(self, where): self.s = connect(where); self.buffer = b''
  def line(self):
    while b'\\r\\n' not in self.buffer:
      more = self.s.recv(65536)
      if not more: fail('the server has closed the connection')
      self.buffer += more
    line, self.buffer = self.buffer.split(b'\\r\\n', 1); return line
  def answer(self):
    line = self.line()
    if line[:1] == b'-': fail(line)
    if line[:1] != b'$' or line == b'$-1': return line[1:]
    length = int(line[1:])
    while len(self.buffer) < length + 2: self.buffer += exactly(self.s, length + 2 - len(self.buffer))
    data, self.buffer = self.buffer[:length], self.buffer[length + 2:]; return data
  def send(self, *words):
    words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
    self.s.sendall(b'*%d\\r\\n' % len(words) + b''.join(b'$%d\\r\\n%s\\r\\n' % (len(w), w) for w in words))
  def ask(self, *words): self.send(*words); return self.answer()
where, name = sys.argv[1:3]
redis = Redis(where); done = log(sys.argv[3])
n = 0
while True:
  n += 1
  if redis.ask('INCR', name) != b'%d' % n: fail(name, 'is not', n)
  value = os.urandom(n * 37 % 30000)
  for key in range(5): redis.send('SET', '%s:%d' % (name, key), value)
  for key in range(5):
    if redis.answer() != b'OK': fail('SET')
  if redis.ask('GET', '%s:%d' % (name, n % 5)) != value: fail('another value')
  acknowledge(done, n)
`;

const INSIDE = ['a', 'b', 'c'];
const OUTSIDE = ['v', 'w'];
const PORT = 6379;

function setUp(): string {
  const directory = mkdtempSync(join(tmpdir(), 'stasis-redis-'));
  writeFileSync(join(directory, 'client.py'), WRITER);
  const socket = `${directory}/socket`;
  const script = [
    `cd ${directory}`,
    `/usr/bin/redis-server --port ${PORT} --bind 127.0.0.1 --unixsocket ${socket} --dir ${directory} --appendonly yes --appendfsync everysec --save '1 100' --logfile ${directory}/log --io-threads 2 &`,
    ...INSIDE.map((name) => `/usr/bin/python3 client.py ${socket} ${name} acked-${name} &`),
    'wait',
  ];
  writeFileSync(join(directory, 'run.sh'), `${script.join('\n')}\n`);
  return directory;
}

test('Redis under load, with clients on its Unix socket and over TCP', {
  skip: SKIP_INTEGRATION,
}, async () => {
  const directory = setUp();
  using subject = Subject.start(['bash', join(directory, 'run.sh')], directory);
  const client = join(directory, 'client.py');
  const others = OUTSIDE.map((name) =>
    Subject.start(['/usr/bin/python3', client, `127.0.0.1:${PORT}`, name, join(directory, `acked-${name}`)]),
  );
  try {
    const names = [...INSIDE, ...OUTSIDE];
    const logs = names.map((name) => join(directory, `acked-${name}`));
    await survive(subject, { logs, checkpoint: ['--tcp-established'], others });
    for (const name of names) {
      const before = acknowledged(join(directory, `acked-${name}`));
      const words = ['-s', join(directory, 'socket'), 'GET', name];
      const count = Number(execFileSync('/usr/bin/redis-cli', words, { encoding: 'utf8' }));
      assert.ok(count >= before, `${name}: ${count} of ${before} acknowledged`);
    }
    assert.doesNotMatch(readFileSync(join(directory, 'log'), 'utf8'), /BUG|crashed|Can't save|rror writing/);
    for (const { output } of [subject, ...others]) assert.doesNotMatch(output, /FAIL/);
  } finally {
    await end(...others, subject);
  }
});
