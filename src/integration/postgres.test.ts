import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { acknowledged, CLIENT, end, SKIP_INTEGRATION, survive } from '../testing/servers.js';
import { Subject } from '../testing/subject.js';

/**
 * PostgreSQL: a dozen processes with anonymous and System V shared memory in the host's IPC namespace, POSIX shared
 * memory below /dev/shm, POSIX semaphores, Unix sockets, epolls, signalfds, the lock of its directory. Its clients on the
 * Unix socket are of its tree, those over TCP are not, and never learn of it.
 */
const WRITER = `${CLIENT}
def message(s):
  kind, length = struct.unpack('!cI', exactly(s, 5)); return kind, exactly(s, length - 4)
def start(s):
  body = struct.pack('!I', 196608) + b'user\\0postgres\\0database\\0postgres\\0\\0'
  s.sendall(struct.pack('!I', len(body) + 4) + body)
  while True:
    kind, body = message(s)
    if kind == b'E': return False
    if kind == b'Z': return True
def query(s, text):
  body = text.encode() + b'\\0'
  s.sendall(b'Q' + struct.pack('!I', len(body) + 4) + body)
  rows = []
  while True:
    kind, body = message(s)
    if kind == b'E': fail(text, body)
    if kind == b'D': rows.append(body)
    if kind == b'Z': return rows
def value(row): return row[6:].decode()
where, name = sys.argv[1:3]
while True:
  s = connect(where)
  if start(s): break
  s.close(); time.sleep(0.05)
done = log(sys.argv[3])
n = 0
while True:
  n += 1
  query(s, "BEGIN"); query(s, "INSERT INTO writes VALUES ('%s', %d)" % (name, n)); query(s, "COMMIT"); acknowledge(done, n)
  if n % 10 == 0:
    found = value(query(s, "SELECT count(*) FROM writes WHERE who = '%s'" % name)[0])
    if found != str(n): fail(name, 'finds', found, 'rows of', n)
  if n % 7 == 0: query(s, "SELECT sum(n) FROM (SELECT n FROM writes WHERE who = '%s' ORDER BY random()) AS shuffled" % name)
`;

function binaries(): string {
  const root = '/usr/lib/postgresql';
  const versions = readdirSync(root).filter((version) => existsSync(`${root}/${version}/bin/initdb`));
  const newest = versions.sort((a, b) => Number(a) - Number(b)).at(-1);
  assert.ok(newest !== undefined, 'PostgreSQL is not installed');
  return `${root}/${newest}/bin`;
}

const AS_POSTGRES = ['--reuid', 'postgres', '--regid', 'postgres', '--clear-groups'];

const PORT = 54320;
const INSIDE = ['a', 'b', 'c'];
const OUTSIDE = ['v', 'w'];

function psql(directory: string, command: string): string {
  const words = ['-p', String(PORT), '-h', directory, '-U', 'postgres', '-At', '-c', command];
  return execFileSync(join(binaries(), 'psql'), words, { encoding: 'utf8' }).trim();
}

function cluster(): string {
  const directory = mkdtempSync(join(tmpdir(), 'stasis-postgres-'));
  chmodSync(directory, 0o777);
  const bin = binaries();
  execFileSync(
    'setpriv',
    [...AS_POSTGRES, `${bin}/initdb`, '-D', `${directory}/data`, '-A', 'trust', '-U', 'postgres'],
    {
      stdio: ['ignore', 'ignore', 'inherit'],
    },
  );
  writeFileSync(join(directory, 'client.py'), WRITER);
  const socket = `${directory}/.s.PGSQL.${PORT}`;
  const script = [
    `cd ${directory}`,
    `setpriv ${AS_POSTGRES.join(' ')} ${bin}/postgres -D data -k ${directory} -c listen_addresses=127.0.0.1 -c port=${PORT} -c fsync=off -c max_parallel_workers_per_gather=2 -c min_parallel_table_scan_size=0 -c parallel_setup_cost=0 -c parallel_tuple_cost=0 2>log &`,
    `until ${bin}/psql -p ${PORT} -qh ${directory} -U postgres -c 'CREATE TABLE writes (who text, n int, PRIMARY KEY (who, n))' 2>/dev/null; do sleep 0.1; done`,
    `${bin}/pgbench -p ${PORT} -qih ${directory} -U postgres postgres >/dev/null 2>&1`,
    ...INSIDE.map((name) => `/usr/bin/python3 client.py ${socket} ${name} acked-${name} &`),
    `${bin}/pgbench -p ${PORT} -nh ${directory} -U postgres -c 3 -j 2 -R 60 -T 100000 postgres >pgbench.log 2>&1 || echo FAIL pgbench &`,
    'echo ready',
    'wait',
  ];
  writeFileSync(join(directory, 'run.sh'), `${script.join('\n')}\n`);
  return directory;
}

test('PostgreSQL under load, with clients on its Unix socket and over TCP', {
  skip: SKIP_INTEGRATION,
}, async () => {
  const directory = cluster();
  using subject = Subject.start(['bash', join(directory, 'run.sh')], directory);
  const others: Subject[] = [];
  try {
    await subject.expect(/ready/, 60_000);
    const client = join(directory, 'client.py');
    for (const name of OUTSIDE)
      others.push(
        Subject.start([
          '/usr/bin/python3',
          client,
          `127.0.0.1:${PORT}`,
          name,
          join(directory, `acked-${name}`),
        ]),
      );
    const names = [...INSIDE, ...OUTSIDE];
    const logs = names.map((name) => join(directory, `acked-${name}`));
    await survive(subject, { logs, checkpoint: ['--tcp-established'], others });
    for (const name of names) {
      const before = acknowledged(join(directory, `acked-${name}`));
      const rows = Number(psql(directory, `SELECT count(*) FROM writes WHERE who = '${name}'`));
      assert.ok(rows >= before, `${name}: ${rows} rows of ${before} acknowledged ones`);
    }
    const balances = psql(
      directory,
      'SELECT (SELECT sum(abalance) FROM pgbench_accounts) - (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(tbalance) FROM pgbench_tellers) - (SELECT sum(delta) FROM pgbench_history)',
    );
    assert.equal(balances, '0|0');
    assert.doesNotMatch(
      readFileSync(join(directory, 'log'), 'utf8'),
      /ERROR|FATAL:(?!.*(starting up|does not exist))|PANIC|terminated/,
    );
    for (const { output } of [subject, ...others]) assert.doesNotMatch(output, /FAIL/);
  } finally {
    await end(...others, subject);
  }
});
