import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { lastingLocks, unlock } from '../resources/socket/lock.js';
import { CHECKPOINT, RESTORE } from '../testing/options.js';
import { Subject } from '../testing/subject.js';
import { dump } from './dump.js';
import { UnsupportedError } from './errors.js';
import { restore } from './restore.js';

/** STASIS_ROUNDS: how often the connection under load is taken down and brought back. */
const ROUNDS = Number(process.env.STASIS_ROUNDS ?? 5);
const OPTIONS = { ...CHECKPOINT, tcpEstablished: true, overwrite: true } as const;

execFileSync('ip', ['link', 'set', 'lo', 'up']);

/** Random bytes both ways, hashed at both ends; SIGUSR1 to the client ends it. How much it got is in the file `progress`. */
const STREAM = `
import hashlib, os, select, signal, socket, struct, sys
def exchange(sock, progress):
  sent, received, got, pending, ending = hashlib.sha256(), hashlib.sha256(), 0, b'', []
  signal.signal(signal.SIGUSR1, lambda *_: ending.append(1))
  sock.setblocking(False)
  writing = reading = True
  while writing or reading:
    r, w, _ = select.select([sock] if reading else [], [sock] if writing else [], [], 1)
    if r:
      data = sock.recv(1 << 20)
      if data: received.update(data); got += len(data)
      else: reading = False; ending.append(1)
      if progress is not None: os.pwrite(progress, struct.pack('q', got), 0)
    if w:
      if not pending and ending: sock.shutdown(socket.SHUT_WR); writing = False; continue
      pending = pending or os.urandom(1 << 16)
      n = sock.send(pending)
      sent.update(pending[:n]); pending = pending[n:]
  print('sent', sent.hexdigest(), 'received', received.hexdigest(), flush=True)
`;

const SERVER = `${STREAM}
listener = socket.create_server(('127.0.0.1', 0))
print('port', listener.getsockname()[1], flush=True)
sock = listener.accept()[0]
print('accepted', flush=True)
exchange(sock, None)
`;

function client(port: string): string {
  return `${STREAM}
progress = os.open('/proc/self/cwd/progress', os.O_CREAT | os.O_RDWR)
sock = socket.create_connection(('127.0.0.1', ${port}))
exchange(sock, progress)
`;
}

class Exchange implements Disposable {
  readonly server: Subject;
  readonly client: Subject;
  readonly image: string;

  private constructor(server: Subject, client: Subject) {
    this.server = server;
    this.client = client;
    this.image = join(server.directory, 'image');
  }

  static async start(): Promise<Exchange> {
    const server = Subject.python(SERVER);
    const [, port = ''] = await server.expect(/port (\d+)/);
    const other = Subject.python(`import os, sys\nos.chdir(os.path.dirname(sys.argv[0]))\n${client(port)}`);
    await server.expect(/accepted/);
    return new Exchange(server, other);
  }

  get received(): number {
    const file = join(this.client.directory, 'progress');
    const bytes = existsSync(file) ? readFileSync(file) : Buffer.alloc(0);
    return bytes.length < 8 ? 0 : Number(bytes.readBigInt64LE());
  }

  /** Other tests have theirs in the same namespace. */
  get locks(): ReturnType<typeof lastingLocks> {
    return lastingLocks().filter(({ owner }) => owner?.directory === this.image);
  }

  /** Wait until the client has got some more. */
  async flows(): Promise<void> {
    const before = this.received;
    const deadline = Date.now() + 60_000;
    while (this.received < before + (1 << 18)) {
      assert.equal(this.client.output, '');
      assert.ok(Date.now() < deadline, `nothing arrives after ${before} bytes`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  async end(): Promise<void> {
    this.client.signal(10);
    const [, sent, received] = await this.client.expect(/sent (\w+) received (\w+)/, 60_000);
    const [, back, forth] = await this.server.expect(/sent (\w+) received (\w+)/, 60_000);
    assert.deepEqual([received, forth], [back, sent]);
  }

  [Symbol.dispose](): void {
    this.server[Symbol.dispose]();
    this.client[Symbol.dispose]();
  }
}

test(`data that flows both ways survives ${ROUNDS} kills and restores`, async () => {
  using exchange = await Exchange.start();
  for (let round = 0; round < ROUNDS; round++) {
    await exchange.flows();
    dump({ ...OPTIONS, pid: exchange.server.pid, directory: exchange.image, afterwards: 'kill' });
    assert.equal(exchange.locks.length, 1);
    restore({ ...RESTORE, directory: exchange.image });
    assert.deepEqual(exchange.locks, []);
  }
  await exchange.flows();
  await exchange.end();
});

test(`data that flows both ways survives ${ROUNDS} dumps that leave the tree running`, async () => {
  using exchange = await Exchange.start();
  for (let round = 0; round < ROUNDS; round++) {
    await exchange.flows();
    dump({ ...OPTIONS, pid: exchange.server.pid, directory: exchange.image, afterwards: 'run' });
    assert.deepEqual(exchange.locks, []);
  }
  await exchange.flows();
  await exchange.end();
});

for (const phase of ['memory', 'give back', 'write', 'commit'])
  test(`kill -9 of the dump in phase "${phase}" leaves the connection working`, async () => {
    using exchange = await Exchange.start();
    await exchange.flows();
    const options = { ...OPTIONS, pid: exchange.server.pid, directory: exchange.image, afterwards: 'kill' };
    const module = (name: string): string => JSON.stringify(new URL(name, import.meta.url).href);
    const script = `
      const { dump } = await import(${module('./dump.js')});
      const phase = (name) => { if (name === ${JSON.stringify(phase)}) process.kill(process.pid, 'SIGKILL'); };
      dump({ ...${JSON.stringify(options)}, timeout_ms: 10000, hooks: { phase } });
    `;
    const { signal, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      encoding: 'utf8',
    });
    assert.equal(signal, 'SIGKILL', stderr);
    await exchange.flows();
    assert.deepEqual(exchange.locks, []);
    await exchange.end();
  });

test('an image that is given up: unlocked, the peer learns that nobody is there', async () => {
  using exchange = await Exchange.start();
  await exchange.flows();
  dump({ ...OPTIONS, pid: exchange.server.pid, directory: exchange.image, afterwards: 'kill' });
  const [lock] = exchange.locks;
  assert.equal(lock?.owner?.directory, exchange.image);
  assert.equal(exchange.client.output, '');
  assert.ok(unlock(lock?.table ?? ''));
  assert.ok(!unlock(lock?.table ?? ''));
  await exchange.client.expect(/ConnectionResetError/);
});

test('without --tcp-established a connection is refused, by its name', async () => {
  using exchange = await Exchange.start();
  const options = { ...CHECKPOINT, pid: exchange.server.pid, directory: exchange.image } as const;
  assert.throws(
    () => dump({ ...options, afterwards: 'kill' }),
    (error) => error instanceof UnsupportedError && /it is connected; --tcp-established/.test(error.message),
  );
  await exchange.flows();
  await exchange.end();
});

test('a connection that a process outside has as well is refused, and who that is', async () => {
  using exchange = await Exchange.start();
  using other = Subject.python(`
import ctypes, os, time
libc = ctypes.CDLL(None)
socket = libc.syscall(438, os.pidfd_open(${exchange.server.pid}), 4, 0)
print('shared', flush=True)
time.sleep(1000)
`);
  await other.expect(/shared/);
  const options = { ...OPTIONS, pid: exchange.server.pid, directory: exchange.image } as const;
  assert.throws(
    () => dump({ ...options, afterwards: 'kill' }),
    (error) =>
      error instanceof UnsupportedError && error.message.includes(`pid ${other.pid} (python3), which is not`),
  );
  other.signal(9);
  await exchange.flows();
  await exchange.end();
});
