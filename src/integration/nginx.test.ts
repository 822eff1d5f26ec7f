import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { CLIENT, end, SKIP_INTEGRATION, survive } from '../testing/servers.js';
import { Subject } from '../testing/subject.js';

/** nginx: a master and workers of another user, connections that are kept alive, files by sendfile(2). Clients over TCP, none of its tree. */
const PORT = 8080;
const READER = `${CLIENT}
import hashlib, random
s = connect(sys.argv[1]); done = log(sys.argv[2])
def head():
  data = b''
  while not data.endswith(b'\\r\\n\\r\\n'): data += exactly(s, 1)
  return data.decode().lower()
n = 0
while True:
  n += 1
  size = random.choice((0, 1, 1000, 70000, 1000000))
  s.sendall(b'GET /%d HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' % size)
  answer = head()
  if ' 200 ' not in answer or 'content-length: %d\\r' % size not in answer: fail(answer)
  if exactly(s, size) != bytes(i % 251 for i in range(1000)) * (size // 1000) + bytes(i % 251 for i in range(size % 1000)): fail('another content', size)
  acknowledge(done, n)
`;

const CLIENTS = ['u', 'v', 'w'];

function content(size: number): Buffer {
  return Buffer.from(Array.from({ length: size }, (_, index) => (index % 1000) % 251));
}

function setUp(): string {
  const directory = mkdtempSync(join(tmpdir(), 'stasis-nginx-'));
  chmodSync(directory, 0o755);
  for (const size of [0, 1, 1000, 70_000, 1_000_000])
    writeFileSync(join(directory, String(size)), content(size));
  writeFileSync(join(directory, 'client.py'), READER);
  writeFileSync(
    join(directory, 'conf'),
    `daemon off; worker_processes 2; user nobody nogroup; pid ${directory}/pid; error_log ${directory}/log;
events { worker_connections 64; }
http { sendfile on; keepalive_requests 1000000; access_log ${directory}/access; server { listen 127.0.0.1:${PORT}; root ${directory}; } }
`,
  );
  return directory;
}

test('nginx under load, with clients over TCP', { skip: SKIP_INTEGRATION }, async () => {
  const directory = setUp();
  using subject = Subject.start(['/usr/sbin/nginx', '-c', join(directory, 'conf')], directory);
  const client = join(directory, 'client.py');
  const others = CLIENTS.map((name) =>
    Subject.start(['/usr/bin/python3', client, `127.0.0.1:${PORT}`, join(directory, `acked-${name}`)]),
  );
  try {
    const logs = CLIENTS.map((name) => join(directory, `acked-${name}`));
    await survive(subject, { logs, checkpoint: ['--tcp-established'], others });
    assert.doesNotMatch(readFileSync(join(directory, 'log'), 'utf8'), /\[(error|crit|alert|emerg)\]/);
    for (const { output } of [subject, ...others]) assert.doesNotMatch(output, /FAIL/);
  } finally {
    await end(...others, subject);
  }
});
