import assert from 'node:assert/strict';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { CLIENT, end, SKIP_INTEGRATION, survive } from '../testing/servers.js';
import { Subject } from '../testing/subject.js';

/** memcached: threads, each with an epoll, that wake each other by eventfds. Clients over TCP, of its tree and not. */
const PORT = 11211;
const WRITER = `${CLIENT}
import random
s = connect(sys.argv[1]); name = sys.argv[2]; done = log(sys.argv[3])
def line():
  data = b''
  while not data.endswith(b'\\r\\n'): data += exactly(s, 1)
  return data[:-2]
def store(key, value):
  s.sendall(b'set %s 0 0 %d\\r\\n%s\\r\\n' % (key.encode(), len(value), value))
  if line() != b'STORED': fail('not stored')
def get(key):
  s.sendall(b'get %s\\r\\n' % key.encode())
  head = line().split()
  if head[0] != b'VALUE': fail(key, 'is lost')
  value = exactly(s, int(head[3])); exactly(s, 2)
  if line() != b'END': fail('no end')
  return value
kept = {}
n = 0
while True:
  n += 1
  key = '%s-%d' % (name, n % 50); value = os.urandom(random.randrange(20000))
  store(key, value); kept[key] = value; acknowledge(done, n)
  other = random.choice(list(kept))
  if get(other) != kept[other]: fail(other, 'is another')
`;

const INSIDE = ['a', 'b'];
const OUTSIDE = ['v', 'w'];

test('memcached under load, with clients over TCP', { skip: SKIP_INTEGRATION }, async () => {
  const directory = mkdtempSync(join(tmpdir(), 'stasis-memcached-'));
  const client = join(directory, 'client.py');
  writeFileSync(client, WRITER);
  const script = [
    `cd ${directory}`,
    `/usr/bin/memcached -u nobody -l 127.0.0.1 -p ${PORT} -U 0 -t 3 -m 64 &`,
    ...INSIDE.map((name) => `/usr/bin/python3 client.py 127.0.0.1:${PORT} ${name} acked-${name} &`),
    'wait',
  ];
  writeFileSync(join(directory, 'run.sh'), `${script.join('\n')}\n`);
  using subject = Subject.start(['bash', join(directory, 'run.sh')], directory);
  const others = OUTSIDE.map((name) =>
    Subject.start(['/usr/bin/python3', client, `127.0.0.1:${PORT}`, name, join(directory, `acked-${name}`)]),
  );
  try {
    const logs = [...INSIDE, ...OUTSIDE].map((name) => join(directory, `acked-${name}`));
    await survive(subject, { logs, checkpoint: ['--tcp-established'], others });
    for (const { output } of [subject, ...others]) assert.doesNotMatch(output, /FAIL/);
  } finally {
    await end(...others, subject);
  }
});
