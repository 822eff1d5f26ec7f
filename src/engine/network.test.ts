import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, openSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { SIGUSR1 } from '../abi/signal.js';
import { ImageReader } from '../image/index.js';
import { Network } from '../kernel/namespace.js';
import { locksEverywhere } from '../library/work/locks.js';
import { unlockTree } from '../library/work/unlock.js';
import { CHECKPOINT, RESTORE } from '../testing/options.js';
import { Subject } from '../testing/subject.js';
import { refusalsOf } from './check.js';
import { dump } from './dump.js';
import { UnsupportedError } from './errors.js';
import { restore } from './restore.js';

/** Trees in a network namespace that is not the dumping process's. */

/** Keeps one, with lo up, as long as it runs. */
const keeper = Subject.start([
  'unshare',
  '--net',
  'sh',
  '-c',
  'ip link set lo up && echo up && exec sleep 600',
]);
after(() => keeper[Symbol.dispose]());
const there = `/proc/${keeper.pid}/ns/net`;

function networkOf(pid: number | string): string {
  return readlinkSync(`/proc/${pid}/ns/net`);
}

function external(): string {
  return `${networkOf(keeper.pid).replace(':', '')}:tree`;
}

async function startThere(code: string): Promise<Subject> {
  await keeper.expect(/up/);
  const subject = Subject.start(['nsenter', `--net=${there}`, '/usr/bin/python3', '-u', '-c', code]);
  await subject.expect(/ready/);
  return subject;
}

/** Of this image: other tests have locks as well. */
function placesOfLocks(directory: string): (string | null)[] {
  return locksEverywhere().flatMap((lock) => (lock.directory === directory ? [lock.network] : []));
}

const OPTIONS = { ...CHECKPOINT, tcpEstablished: true, overwrite: true } as const;

/** A pair over TCP with data on its way, UDP and abstract Unix sockets with queues; SIGUSR1 looks whether all is there. */
const SOCKETS = `
import os, signal, socket, threading
listener = socket.create_server(('127.0.0.1', 0))
near = socket.create_connection(listener.getsockname())
far = listener.accept()[0]
near.sendall(b'queued')
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(('127.0.0.1', 0))
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sender.connect(udp.getsockname())
sender.send(b'datagram')
name = b'\\0stasis-network-' + str(os.getpid()).encode()
box = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); box.bind(name)
mail = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); mail.connect(name)
mail.send(b'letter')
def look():
  assert far.recv(100) == b'queued'
  far.sendall(b'answer'); assert near.recv(100) == b'answer'
  assert udp.recv(100) == b'datagram'; sender.send(b'more'); assert udp.recv(100) == b'more'
  assert box.recv(100) == b'letter'; mail.send(b'more'); assert box.recv(100) == b'more'
  new = socket.create_connection(listener.getsockname()); listener.accept()[0].close(); new.close()
  near.sendall(b'queued'); sender.send(b'datagram'); mail.send(b'letter')
  print('all well', flush=True)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print('ready', flush=True)
while True: signal.sigwait({signal.SIGUSR1}); look()
`;

async function isWell(subject: Subject): Promise<void> {
  const before = subject.output.split('all well').length;
  subject.signal(SIGUSR1);
  await subject.expect(new RegExp(`^(.*\\n)*(.*all well\\n){${before}}`));
}

test('sockets of a tree in an external network namespace come back in it', async () => {
  using subject = await startThere(SOCKETS);
  const { pid } = subject;
  const directory = join(subject.directory, 'image');
  const own = networkOf('self');
  const options = { ...OPTIONS, pid, directory, external: [external()] };
  dump({ ...options, afterwards: 'run' });
  assert.equal(networkOf('self'), own);
  await isWell(subject);
  for (const rejoin of [{ joins: [`net:${there}`] }, { joins: [`net:${keeper.pid}`] }]) {
    dump(options);
    assert.deepEqual(placesOfLocks(directory), [there]);
    assert.throws(
      () => restore({ ...RESTORE, directory }),
      /was external as tree: give it by --inherit-fd fd\[N\]:tree/,
    );
    restore({ ...RESTORE, ...rejoin, directory });
    assert.equal(networkOf('self'), own);
    assert.equal(networkOf(pid), networkOf(keeper.pid));
    assert.deepEqual(placesOfLocks(directory), []);
    await isWell(subject);
  }
});

test('an external namespace is handed in as a descriptor', async () => {
  using subject = await startThere(SOCKETS);
  const directory = join(subject.directory, 'image');
  dump({ ...OPTIONS, pid: subject.pid, directory, external: [external()] });
  using reader = ImageReader.open(directory);
  const id = reader.readOne('ids', subject.pid).netNsId;
  assert.notEqual(id, reader.readOne('inventory').rootIds?.netNsId);
  assert.equal(reader.readOne('netns', id).extKey, 'tree');
  const fd = openSync(there, 'r');
  restore({ ...RESTORE, directory, inheritFds: new Map([['tree', fd]]) });
  closeSync(fd);
  assert.equal(networkOf(subject.pid), networkOf(keeper.pid));
  await isWell(subject);
});

for (const joinable of [true, false])
  test(
    joinable
      ? 'as criu: while its image waits, nothing goes in or out of the namespace'
      : 'an image that waits leaves others in the namespace alone',
    async () => {
      using server = await startThere(`
import socket
listener = socket.create_server(('127.0.0.1', 4711))
print('ready', flush=True)
while True: listener.accept()[0].close()
`);
      const connect = (): boolean => {
        const code = `import socket; socket.create_connection(('127.0.0.1', 4711), 0.2)`;
        return spawnSync('nsenter', [`--net=${there}`, '/usr/bin/python3', '-c', code]).status === 0;
      };
      using subject = await startThere(`import signal; print('ready', flush=True); signal.pause()`);
      const directory = join(subject.directory, 'image');
      const options = { ...OPTIONS, pid: subject.pid, directory, external: [external()], joinable };
      assert.ok(connect());
      let inside: boolean | undefined;
      dump({
        ...options,
        afterwards: 'run',
        hooks: {
          committed: () => {
            inside = connect();
            return 'run';
          },
        },
      });
      assert.equal(inside, !joinable);
      assert.ok(connect());
      dump(options);
      assert.equal(connect(), !joinable);
      restore({ ...RESTORE, directory, joins: [`net:${there}`] });
      assert.ok(connect());
      dump(options);
      assert.equal(connect(), !joinable);
      assert.equal(unlockTree({ directory, trust: true }).tables.length, joinable ? 1 : 0);
      assert.ok(connect());
      assert.ok(server.isAlive);
    },
  );

test('what callers run between phases is in their own namespace', async () => {
  using subject = await startThere(`import signal; print('ready', flush=True); signal.pause()`);
  const directory = join(subject.directory, 'image');
  const seen: string[] = [];
  const note = (): void => {
    seen.push(spawnSync('readlink', ['/proc/self/ns/net'], { encoding: 'utf8' }).stdout.trim());
  };
  const committed = () => {
    note();
    return 'kill' as const;
  };
  dump({
    ...OPTIONS,
    pid: subject.pid,
    directory,
    external: [external()],
    hooks: { beforeCommit: note, committed },
  });
  restore({ ...RESTORE, directory, joins: [`net:${there}`], hooks: { beforeResume: note } });
  assert.deepEqual(seen, Array(3).fill(networkOf('self')));
});

test('one that others use too is refused without a word, and what would help is said', async () => {
  using subject = await startThere(SOCKETS);
  const { pid } = subject;
  const directory = join(subject.directory, 'image');
  const options = { ...OPTIONS, pid, directory };
  assert.throws(
    () => dump(options),
    (error) =>
      error instanceof UnsupportedError &&
      error.items.length === 1 &&
      /others use it too; leave it out by --external net\[\d+\]:NAME/.test(error.message),
  );
  assert.ok(!existsSync(join(directory, 'inventory.img')));
  await isWell(subject);
  // As criu: whoever restores it may say where.
  dump({ ...options, joinable: true });
  assert.throws(
    () => restore({ ...RESTORE, directory, joins: ['uts:/x'] }),
    /only network namespaces can be joined/,
  );
  assert.throws(
    () => restore({ ...RESTORE, directory, joins: ['net:/dev/null'] }),
    /setns \(network namespace \/dev\/null\): Invalid argument/,
  );
  restore({ ...RESTORE, directory, joins: [`net:${there}`] });
  assert.equal(networkOf(pid), networkOf(keeper.pid));
  await isWell(subject);
});

/** In a namespace of its own, which nobody else has. */
async function startAlone(setUp: string, code: string): Promise<Subject> {
  const script = `${setUp}\nexec /usr/bin/python3 -u -c "$1"`;
  const subject = Subject.start(['unshare', '--net', 'bash', '-e', '-c', script, 'bash', code]);
  await subject.expect(/ready/);
  return subject;
}

function seenFrom(pid: number): string {
  const script =
    'ip addr show; ip route show table all; ip -6 route show table all; ip rule; ip -6 rule; ' +
    'sysctl -a 2>/dev/null | grep ^net | sort; nft list ruleset; iptables-legacy-save';
  const { stdout, stderr, status } = spawnSync('nsenter', ['-t', `${pid}`, '--net', 'bash', '-c', script], {
    encoding: 'utf8',
  });
  assert.equal(status, 0, stderr);
  return stdout.replace(/packets \d+ bytes \d+|^#.*|\[\d+:\d+\]|.*nf_conntrack_count.*/gm, '');
}

test('a namespace that ends with the tree is saved with what is in it', async () => {
  const setUp = `
    ip link set lo up mtu 60000; ip addr add 10.1.2.3/32 dev lo label lo:1; ip addr add fd00::1/128 dev lo
    ip route add 10.9.0.0/16 dev lo table 77; ip route add blackhole 10.8.0.0/16; ip route add fd01::/64 dev lo metric 5
    ip rule add from 10.1.2.3 table 77 pref 100; ip rule del pref 32767
    sysctl -q net.ipv4.ip_forward=1 net.ipv6.conf.lo.hop_limit=33 net.core.somaxconn=1234 net.unix.max_dgram_qlen=7`;
  using subject = await startAlone(setUp, SOCKETS);
  const { pid } = subject;
  const directory = join(subject.directory, 'image');
  const before = seenFrom(pid);
  for (let round = 0; round < 2; round++) {
    dump({ ...OPTIONS, pid, directory });
    assert.deepEqual(placesOfLocks(directory), []);
    restore({ ...RESTORE, directory });
    assert.equal(seenFrom(pid), before);
    await isWell(subject);
  }
  assert.notEqual(networkOf(pid), networkOf('self'));
});

const NFT = `nft -f - <<'END'
table ip filter {
  set seen { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 } }
  chain input {
    type filter hook input priority 0; policy drop
    ct state established counter accept
    ip saddr @seen drop
    ct state new meta mark 7 counter accept
  }
}
END
`;
const IPTABLES = `iptables-legacy -w -A INPUT -m state --state ESTABLISHED -j ACCEPT
iptables-legacy -w -A INPUT -m state --state NEW -m mark --mark 7 -j ACCEPT
iptables-legacy -w -A INPUT -j DROP
`;

/** Connections begin with a mark; what is not tracked as one of them is dropped. */
const FILTERED = `
import signal, socket
listener = socket.create_server(('127.0.0.1', 0))
listener.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)
near = socket.socket(); near.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 7)
near.connect(listener.getsockname())
far = listener.accept()[0]
near.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0); far.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0)
near.sendall(b'queued')
def look():
  assert far.recv(100) == b'queued'
  far.sendall(b'answer'); assert near.recv(100) == b'answer'
  near.sendall(b'queued')
  new = socket.socket(); new.settimeout(0.1)
  try: new.connect(listener.getsockname()); raise SystemExit('let in')
  except TimeoutError: pass
  print('all well', flush=True)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print('ready', flush=True)
while True: signal.sigwait({signal.SIGUSR1}); look()
`;

for (const [program, rules] of [
  ['nft', NFT],
  ['iptables-legacy', IPTABLES],
] as const) {
  const skip = spawnSync(program, ['--version']).status === 0 ? false : `${program} is not installed`;
  test(`${program}: rules are kept, and the connections that they know`, { skip }, async () => {
    using subject = await startAlone(`ip link set lo up; ${rules}`, FILTERED);
    const { pid } = subject;
    const directory = join(subject.directory, 'image');
    const before = seenFrom(pid);
    for (let round = 0; round < 2; round++) {
      await isWell(subject);
      dump({ ...OPTIONS, pid, directory });
      restore({ ...RESTORE, directory });
      assert.equal(seenFrom(pid), before);
    }
    await isWell(subject);
  });
}

test('what of a namespace cannot be made again is refused by name, before anything is frozen', async () => {
  using subject = await startAlone(
    'ip link set lo up; ip link add v0 type veth peer name v1; tc qdisc add dev lo root pfifo; ip -6 rule add from fd00::1 table 77',
    `import signal; print('ready', flush=True); signal.pause()`,
  );
  const reasons = refusalsOf(subject.pid, OPTIONS).map(({ reason }) => reason);
  for (const pattern of [/devices: .*v[01] \(veth\)/, /queueing disciplines: .*pfifo/, /rules of IPv6/])
    assert.ok(
      reasons.some((reason) => /^it would end with the tree/.test(reason) && pattern.test(reason)),
      reasons.join('\n'),
    );
  assert.match(refusalsOf(subject.pid, OPTIONS)[0]?.help ?? '', /^keep it \(ip netns attach NAME \d+\)/);
});

test('a tree in two network namespaces is refused, threads included', async () => {
  using subject = await startThere(`
import ctypes, os, signal, threading
def leave():
  assert ctypes.CDLL(None).unshare(0x40000000) == 0
  print('ready', flush=True)
  signal.pause()
threading.Thread(target=leave).start()
signal.pause()
`);
  const refusals = refusalsOf(subject.pid, { ...OPTIONS, external: [external()] });
  assert.deepEqual(
    refusals.map(({ reason }) => reason.replace(/\d+/, 'N')),
    ['it is not that of the root of the tree (net:[N]), and only one can be kept'],
  );
});

for (const phase of ['memory', 'give back', 'commit'])
  test(`kill -9 of the dump in phase "${phase}" lets the namespace go`, async () => {
    using subject = await startThere(SOCKETS);
    const directory = join(subject.directory, 'image');
    const options = { ...OPTIONS, pid: subject.pid, directory, external: [external()] };
    const module = JSON.stringify(new URL('./dump.js', import.meta.url).href);
    const script = `
      const { dump } = await import(${module});
      const phase = (name) => { if (name === ${JSON.stringify(phase)}) process.kill(process.pid, 'SIGKILL'); };
      dump({ ...${JSON.stringify(options)}, hooks: { phase } });
    `;
    const { signal, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      encoding: 'utf8',
    });
    assert.equal(signal, 'SIGKILL', stderr);
    await isWell(subject);
    assert.deepEqual(placesOfLocks(directory), []);
  });

test('whoever leaves a namespace is where he was before, whatever happened', async () => {
  await keeper.expect(/up/);
  const own = networkOf('self');
  assert.throws(() => {
    using entered = Network.enter(there);
    assert.equal(networkOf('self'), networkOf(keeper.pid));
    assert.throws(() =>
      entered.outside(() => {
        assert.equal(networkOf('self'), own);
        throw new Error('within');
      }),
    );
    assert.equal(networkOf('self'), networkOf(keeper.pid));
    throw new Error('of the scope');
  });
  assert.equal(networkOf('self'), own);
});
