import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { listTables, openNftables } from '../kernel/netlink/nftables.js';
import { unlessVanished } from '../kernel/procfs/error.js';
import { readStat, readState } from '../kernel/procfs/stat.js';
import { attempt } from '../kernel/syscall.js';
import { CHECKPOINT } from '../testing/options.js';
import { Subject } from '../testing/subject.js';
import { dump } from './dump.js';

/** Somebody kills the guardian (it is just another process): the tree must go on as it was all the same. */

execFileSync('ip', ['link', 'set', 'lo', 'up']);

const ECHO = `
import socket
listener = socket.create_server(('127.0.0.1', 0))
print('port', listener.getsockname()[1], flush=True)
sock = listener.accept()[0]
print('accepted', flush=True)
while True: sock.send(sock.recv(100))
`;

const CLIENT = `
import signal, socket
sock = socket.create_connection(('127.0.0.1', PORT))
def ask(*_):
  sock.settimeout(10); sock.send(b'there?'); print('answer', sock.recv(100).decode(), flush=True)
signal.signal(signal.SIGUSR1, ask)
print('connected', flush=True)
while True: signal.sigtimedwait((), 0.05)
`;

/** The child of this process that leads a session of its own. */
function guardianOf(parent: number): number {
  const found = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => unlessVanished(() => readStat(Number(name))))
    .find((stat) => stat?.ppid === parent && stat.session === stat.pid);
  assert.ok(found !== undefined, 'there is no guardian');
  return found.pid;
}

/** Until it is gone for sure. */
function killGuardian(): void {
  const pid = guardianOf(process.pid);
  attempt('kill', [pid, 9]);
  while (readState(pid, pid) !== 'Z');
}

/** Those of this process; other tests may have some in the same network. */
function tables(): string[] {
  using netlink = openNftables();
  return listTables(netlink)
    .map(({ name }) => name)
    .filter((name) => name.startsWith(`stasis-${process.pid}-`));
}

/** A dump that will kill throws, for nobody would finish it; one that leaves the tree running needs nobody any more. */
for (const afterwards of ['run', 'kill'] as const)
  for (const phase of ['memory', 'write', 'commit'])
    test(`guardian lost in phase "${phase}" of a dump (${afterwards}): no connection stays silent`, async () => {
      using server = Subject.python(ECHO);
      const [, port = ''] = await server.expect(/port (\d+)/);
      using client = Subject.python(CLIENT.replace('PORT', port));
      await server.expect(/accepted/);
      await client.expect(/connected/);
      const before = readdirSync('/proc/self/fd').length;
      const hook = (name: string): void => {
        if (name === phase) killGuardian();
      };
      const request = { ...CHECKPOINT, tcpEstablished: true, pid: server.pid, afterwards } as const;
      const save = () =>
        dump({ ...request, directory: join(server.directory, 'image'), hooks: { phase: hook } });
      if (afterwards === 'run') save();
      else assert.throws(save);
      assert.deepEqual(tables(), []);
      assert.equal(readdirSync('/proc/self/fd').length, before);
      client.signal(10);
      await client.expect(/answer there\?/);
    });
