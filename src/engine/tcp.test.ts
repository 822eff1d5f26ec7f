import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { IPPROTO_MPTCP } from '../abi/socket.js';
import { lastingLocks } from '../resources/socket/lock.js';
import { CHECKPOINT, RESTORE } from '../testing/options.js';
import { Subject } from '../testing/subject.js';
import { dump } from './dump.js';
import { UnsupportedError } from './errors.js';
import { restore } from './restore.js';

const OPTIONS = { ...CHECKPOINT, tcpEstablished: true, overwrite: true } as const;

execFileSync('ip', ['link', 'set', 'lo', 'up']);

/** A listener that accepts when it is told to, by SIGUSR1. */
const SLUGGISH = `
import signal, socket
accepted = []
listener = socket.create_server(('127.0.0.1', 0))
def accept(*_):
  accepted.append(listener.accept()[0])
  print('accepted', accepted[-1].recv(100).decode(), flush=True)
signal.signal(signal.SIGUSR1, accept)
print('port', listener.getsockname()[1], flush=True)
while True: signal.sigtimedwait((), 0.05)
`;

function knock(port: string): Subject {
  return Subject.python(`
import socket
sock = socket.create_connection(('127.0.0.1', ${port}))
sock.send(b'hello')
print('connected', flush=True)
print('got', sock.recv(100), flush=True)
`);
}

test('a connection that nobody accepts is refused by name, and stays; accepted, it is saved', async () => {
  using server = Subject.python(SLUGGISH);
  const [, port = ''] = await server.expect(/port (\d+)/);
  using client = knock(port);
  await client.expect(/connected/);
  const options = { ...OPTIONS, pid: server.pid, directory: join(server.directory, 'image') };
  assert.throws(
    () => dump(options),
    (error) =>
      error instanceof UnsupportedError &&
      /1 connections to port \d+ have not been accepted/.test(error.message),
  );
  assert.doesNotMatch(client.output, /Reset/);
  server.signal(10);
  await server.expect(/accepted hello/);
  dump(options);
  restore({ ...RESTORE, directory: options.directory });
  // While attempts were made, new ones were kept off; not any more.
  using second = knock(port);
  await second.expect(/connected/);
});

test('--skip-in-flight leaves it out', async () => {
  using server = Subject.python(SLUGGISH);
  const [, port = ''] = await server.expect(/port (\d+)/);
  using client = knock(port);
  await client.expect(/connected/);
  const options = {
    ...OPTIONS,
    pid: server.pid,
    directory: join(server.directory, 'image'),
    skipInFlight: true,
  };
  dump(options);
  restore({ ...RESTORE, directory: options.directory });
  await client.expect(/ConnectionResetError/);
});

test('--tcp-close makes closed sockets of connections, at the dump or at the restore', async () => {
  for (const when of ['dump', 'restore']) {
    using server = Subject.python(`
import signal, socket
listener = socket.create_server(('127.0.0.1', 0))
print('port', listener.getsockname()[1], flush=True)
sock = listener.accept()[0]
def tell(*_):
  try: print('end', sock.recv(100), flush=True)
  except OSError as error: print('end', error, flush=True)
signal.signal(signal.SIGUSR1, tell)
print('accepted', flush=True)
while True: signal.sigtimedwait((), 0.05)
`);
    const [, port = ''] = await server.expect(/port (\d+)/);
    using client = knock(port);
    await server.expect(/accepted/);
    const directory = join(server.directory, 'image');
    const close = { tcpClose: true };
    dump({ ...OPTIONS, ...(when === 'dump' ? close : {}), pid: server.pid, directory });
    restore({ ...RESTORE, ...(when === 'restore' ? close : {}), directory });
    server.signal(10);
    await server.expect(/end b''/);
    assert.ok(!lastingLocks().some(({ owner }) => owner?.directory === directory));
    assert.ok(client.isAlive || client.output !== '');
  }
});

/** Connections to itself: every other one has data that was not read, and all have data under way. */
const MANY = `
import resource, signal, socket, sys, hashlib
n = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
listener = socket.create_server(('127.0.0.1', 0), backlog=n)
pairs = []
for i in range(n):
  a = socket.create_connection(listener.getsockname())
  b = listener.accept()[0]
  for end in (a, b): end.setblocking(False)
  sent = 0
  if i % 2 == 0:
    try:
      while True: sent += a.send(bytes([i & 255]) * 65536)
    except BlockingIOError: pass
  pairs.append((a, b, sent))
def check(*_):
  for i, (a, b, sent) in enumerate(pairs):
    got = 0
    b.settimeout(30)
    while got < sent:
      data = b.recv(1 << 20)
      assert data == bytes([i & 255]) * len(data)
      got += len(data)
    b.send(b'back')
    a.settimeout(30)
    assert a.recv(100) == b'back'
  print('all', sum(sent for _, _, sent in pairs), flush=True)
signal.signal(signal.SIGUSR1, check)
print('ready', flush=True)
while True: signal.sigtimedwait((), 0.05)
`;

const MANY_CONNECTIONS = Number(process.env.STASIS_CONNECTIONS ?? 40);

for (const afterwards of ['kill', 'run'] as const)
  test(`${2 * MANY_CONNECTIONS} ends of connections with full queues (${afterwards})`, async () => {
    using subject = Subject.start(['/usr/bin/python3', '-c', MANY, String(MANY_CONNECTIONS)]);
    await subject.expect(/ready/);
    const directory = join(subject.directory, 'image');
    dump({ ...OPTIONS, pid: subject.pid, directory, afterwards });
    if (afterwards === 'kill') restore({ ...RESTORE, directory });
    subject.signal(10);
    await subject.expect(/all \d+/, 60_000);
  });

test('a listener of MPTCP stays one, its connections are refused by name', async () => {
  using server = Subject.python(`
import signal, socket
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, ${IPPROTO_MPTCP})
listener.bind(('127.0.0.1', 0))
listener.listen(7)
print('port', listener.getsockname()[1], flush=True)
def accept(*_):
  global sock
  sock = listener.accept()[0]
  print('protocol', sock.getsockopt(socket.SOL_SOCKET, 38), flush=True)
signal.signal(signal.SIGUSR1, accept)
while True: signal.sigtimedwait((), 0.05)
`);
  const [, port = ''] = await server.expect(/port (\d+)/);
  const options = { ...OPTIONS, pid: server.pid, directory: join(server.directory, 'image') };
  dump(options);
  restore({ ...RESTORE, directory: options.directory });
  using client = Subject.python(`
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, ${IPPROTO_MPTCP})
sock.connect(('127.0.0.1', ${port}))
print('connected', flush=True)
print(sock.recv(1))
`);
  await client.expect(/connected/);
  server.signal(10);
  await server.expect(new RegExp(`protocol ${IPPROTO_MPTCP}`));
  assert.throws(
    () => dump(options),
    (error) => error instanceof UnsupportedError && /it is an MPTCP connection/.test(error.message),
  );
  assert.ok(client.isAlive);
});

test('options, and what is left of a connection that was reset', async () => {
  using server = Subject.python(`
import select, signal, socket, struct
TCP_USER_TIMEOUT, TCP_CONGESTION, TCP_DEFER_ACCEPT, TCP_FASTOPEN, TCP_LINGER2 = 18, 13, 9, 23, 8
listener = socket.create_server(('127.0.0.1', 0))
listener.setsockopt(6, TCP_DEFER_ACCEPT, 30)
listener.setsockopt(6, TCP_FASTOPEN, 5)
client = socket.create_connection(listener.getsockname())
client.send(b'last words')
sock = listener.accept()[0]
sock.setsockopt(6, TCP_USER_TIMEOUT, 12345)
sock.setsockopt(6, TCP_CONGESTION, b'reno')
sock.setsockopt(6, TCP_LINGER2, 17)
client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
fine = socket.create_connection(listener.getsockname())
fine.send(b'x')
other = listener.accept()[0]
other.setsockopt(6, TCP_USER_TIMEOUT, 12345)
other.setsockopt(6, TCP_CONGESTION, b'reno')
other.setsockopt(6, TCP_LINGER2, 17)
other.setsockopt(6, socket.TCP_KEEPIDLE, 77)
other.shutdown(socket.SHUT_RD)
client.close()
select.select([], [], [sock], 0.1)
def state():
  names = [listener.getsockopt(6, n) for n in (TCP_DEFER_ACCEPT, TCP_FASTOPEN)]
  names += [other.getsockopt(6, n) for n in (TCP_USER_TIMEOUT, TCP_LINGER2, socket.TCP_KEEPIDLE)]
  names.append(other.getsockopt(6, TCP_CONGESTION, 16).split(bytes(1))[0])
  poll = select.poll()
  for s in (sock, other): poll.register(s, 0xffff & ~select.POLLNVAL)
  return names + [sock.getsockname() == listener.getsockname(), sorted(event for _, event in poll.poll(0))]
before = state()
def tell(*_):
  assert state() == before, (before, state())
  assert sock.recv(100) == b'last words'
  try: sock.recv(100)
  except ConnectionResetError: print('reset, as it was', flush=True)
  assert sock.recv(100) == b''
  assert other.recv(10) == b'x'
  assert other.recv(10) == b''
  print('done', flush=True)
signal.signal(signal.SIGUSR1, tell)
print('ready', before, flush=True)
while True: signal.sigtimedwait((), 0.05)
`);
  await server.expect(/ready/);
  const directory = join(server.directory, 'image');
  dump({ ...OPTIONS, pid: server.pid, directory });
  restore({ ...RESTORE, directory });
  server.signal(10);
  await server.expect(/reset, as it was\ndone/);
});
