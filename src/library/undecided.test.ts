import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { stateOf, until } from '../cli/testing.js';
import { READY } from '../engine/answers.js';
import { ArchiveDecoder } from '../image/index.js';
import { check, checkpoint, MoveError, unlock } from '../index.js';
import { attempt } from '../kernel/syscall.js';
import { Subject } from '../testing/subject.js';

execFileSync('ip', ['link', 'set', 'lo', 'up']);

/** A child echoes, with the port as reusable as it was told to. */
const ECHO = `
import os, signal, socket
listener = socket.create_server(('127.0.0.1', 0))
print('port', listener.getsockname()[1], flush=True)
sock = listener.accept()[0]
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, FLAG)
child = os.fork()
if child > 0:
  print('accepted', flush=True)
  while True: signal.pause()
while True:
  data = sock.recv(100)
  reuse = sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
  sock.send(b'%s, reuse %d' % (data, reuse))
`;

/** SIGUSR1: exchange something; SIGUSR2: is there anything to be read, or an end? */
const CLIENT = `
import signal, socket
sock = socket.create_connection(('127.0.0.1', PORT))
def ask(*_):
  sock.settimeout(20); sock.send(b'there?'); print('answer', sock.recv(100).decode(), flush=True)
def look(*_):
  sock.setblocking(False)
  try: print('end', sock.recv(100), flush=True)
  except BlockingIOError: print('silence', flush=True)
  except OSError as error: print('end', error, flush=True)
signal.signal(signal.SIGUSR1, ask)
signal.signal(signal.SIGUSR2, look)
print('connected', flush=True)
while True: signal.pause()
`;

const SIGKILL = 9;
const SIGUSR1 = 10;
const SIGUSR2 = 12;

interface Pair extends Disposable {
  readonly server: Subject;
  readonly client: Subject;
}

async function connected(reuse = 1): Promise<Pair> {
  const server = Subject.python(ECHO.replace('FLAG', String(reuse)));
  const [, port = ''] = await server.expect(/port (\d+)/);
  const client = Subject.python(CLIENT.replace('PORT', port));
  await server.expect(/accepted/);
  await client.expect(/connected/);
  return {
    server,
    client,
    [Symbol.dispose]() {
      attempt('kill', [-server.pid, SIGKILL]);
      server[Symbol.dispose]();
      client[Symbol.dispose]();
    },
  };
}

/** The other end has it ready, is told to let it go, and is heard of no more. */
async function leaveUndecided(pid: number, network_lock?: 'skip'): Promise<void> {
  const [to, answers] = [new PassThrough(), new PassThrough()];
  const decoder = new ArchiveDecoder('the stream');
  let isReady = false;
  to.on('data', (bytes: Buffer) => {
    decoder.push(bytes);
    const { endAt, isGone } = decoder.contents;
    if (endAt !== undefined && !isReady) answers.write(`${READY}\n`);
    isReady ||= endAt !== undefined;
    if (isGone) answers.end();
  });
  const lock = network_lock === undefined ? {} : { network_lock };
  await assert.rejects(
    checkpoint({ pid, to, answers, tcp_established: true, ...lock }),
    (error) =>
      error instanceof MoveError &&
      error.sourceState === 'stopped' &&
      error.message.includes(`stasis unlock --pid ${pid} --kill`),
  );
}

for (const reuse of [0, 1])
  test(`a source that was left undecided goes on with its connection, reusable: ${reuse}`, async () => {
    using pair = await connected(reuse);
    const { pid } = pair.server;
    await leaveUndecided(pid);
    const lock = (await check()).locks.find((each) => each.pid === pid);
    assert.equal(lock?.left_stopped, true);
    await assert.rejects(unlock({ pid }), /look there.*--kill.*--resume/i);
    const { tables, connections, processes } = await unlock({ pid, decision: 'resume' });
    assert.deepEqual(
      { tables, connections, processes },
      { tables: [lock?.table], connections: 1, processes: 2 },
    );
    pair.client.signal(SIGUSR1);
    await pair.client.expect(new RegExp(`answer there\\?, reuse ${reuse}`));
    await assert.rejects(unlock({ pid, decision: 'kill' }), /is not stopped/);
    assert.ok(!(await check()).locks.some((each) => each.pid === pid));
  });

test('a source that was left undecided is killed without a word, and its lock outlives it', async () => {
  using pair = await connected();
  const { pid } = pair.server;
  await leaveUndecided(pid);
  const { tables, processes } = await unlock({ pid, decision: 'kill' });
  assert.deepEqual({ tables, processes }, { tables: [], processes: 2 });
  await until('it is gone', () => stateOf(pid) === undefined);
  assert.equal((await check()).locks.find((each) => each.pid === pid)?.left_stopped, false);
  assert.equal((await unlock({ pid })).tables.length, 1);
  assert.equal((await unlock({ pid })).tables.length, 0);
});

test('nothing but repair mode is needed for that', async () => {
  using pair = await connected();
  const { pid } = pair.server;
  await leaveUndecided(pid, 'skip');
  await unlock({ pid, decision: 'kill' });
  await until('it is gone', () => stateOf(pid) === undefined);
  pair.client.signal(SIGUSR2);
  await pair.client.expect(/silence/);
});

test('what is unlocked, and what is decided', async () => {
  await assert.rejects(unlock({}), /either an image/);
  await assert.rejects(unlock({ directory: '/x', decision: 'kill' }), /give its pid/);
  await assert.rejects(unlock({ pid: process.pid, decision: 'kill' }), /is not stopped/);
});
