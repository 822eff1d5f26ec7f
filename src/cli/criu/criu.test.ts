import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { decodeImage } from '../../image/codec.js';
import { ImageReader } from '../../image/index.js';
import { Subject } from '../../testing/subject.js';
import {
  CRIU,
  counted,
  counting,
  countsOn,
  parentOf,
  runCommand,
  Scratch,
  stateOf,
  until,
} from '../testing.js';

/** The command as its callers use it. */

const criu = (...args: string[]) => runCommand(CRIU, args);

async function start(scratch: Scratch): Promise<{ subject: Subject; count: string }> {
  const count = scratch.file('count');
  const subject = Subject.python(counting(count));
  await subject.expect(/ready/);
  return { subject, count };
}

/** The dead source's pid is free once its parent, the first process here, has collected it. */
async function gone(pid: number): Promise<void> {
  await until(`pid ${pid} is gone`, () => stateOf(pid) === undefined);
}

test('the version is what callers compare', () => {
  const { status, stdout } = criu('--version');
  assert.equal(status, 0);
  assert.match(stdout, /^Version: 4\.2\nStasis: \d+\.\d+\.\d+\n$/);
  assert.equal(criu('-V').stdout, stdout);
});

test('mistakes of usage', () => {
  for (const args of [
    [],
    ['frobnicate'],
    ['dump', '--nonsense'],
    ['dump', 'extra', '-t', '5'],
    ['cpuinfo'],
    ['pre-dump', '-t', '1'],
  ])
    assert.equal(criu(...args).status, 1, args.join(' '));
  assert.match(criu('page-server').stderr, /not available/);
  assert.match(criu('dump', '-D', '/nonexistent', '-t', '5').stderr, /Couldn't open image dir/);
  assert.equal(criu('--help').status, 0);
});

test('check, and its features', () => {
  assert.match(criu('check').stdout, /^Looks good/);
  const feature = (name: string): number | null =>
    criu('check', '--no-default-config', '-verbosity=0', '--feature', name).status;
  for (const name of ['mnt_id', 'seccomp_filters', 'seccomp_suspend', 'get_rseq_conf', 'ns_pid'])
    assert.equal(feature(name), 0, name);
  for (const name of ['mem_dirty_track', 'autofs', 'nonsense']) assert.equal(feature(name), 1, name);
});

test('dump kills, restore brings back; log, statistics and pidfile are in the work directory', async () => {
  using scratch = new Scratch();
  const { subject, count } = await start(scratch);
  using _ = subject;
  const work = scratch.file('work');
  const image = scratch.file('image');
  mkdirSync(work);
  mkdirSync(image);
  const args = ['-D', image, '-W', work, '-v4'];
  const dumped = criu('dump', '-t', `${subject.pid}`, ...args, '-o', 'dump.log', '--display-stats');
  assert.equal(dumped.status, 0, dumped.stderr);
  assert.match(dumped.stdout, /^Displaying dump stats:\nFreezing time: \d+ us\n/);
  await gone(subject.pid);
  assert.equal(statSync(`${image}/core-${subject.pid}.img`).mode & 0o777, 0o600);
  assert.match(
    readFileSync(`${work}/dump.log`, 'utf8'),
    /^\(\d\d\.\d{6}\) .*\n(?:.*\n)*\(\d\d\.\d{6}\) Dumping finished successfully\n$/,
  );
  const [stats] = decodeImage('stats-dump', readFileSync(`${work}/stats-dump`), 'stats-dump');
  const bytes = readdirSync(image)
    .filter((name) => name.startsWith('pages-'))
    .reduce((sum, name) => sum + statSync(`${image}/${name}`).size, 0);
  const { pagesWritten = 0n, shpagesWritten = 0n } = stats?.message.dump ?? {};
  assert.equal((pagesWritten + shpagesWritten) * 4096n, BigInt(bytes));

  const before = counted(count);
  const restored = criu('restore', ...args, '-d', '-o', 'restore.log', '--pidfile', 'root.pid');
  assert.equal(restored.status, 0, restored.stderr);
  assert.equal(readFileSync(`${work}/root.pid`, 'utf8'), `${subject.pid}`);
  await until('it counts', () => counted(count) > before);
  assert.ok(existsSync(`${work}/stats-restore`));
  assert.match(readFileSync(`${work}/restore.log`, 'utf8'), /Restore finished successfully/);
});

test('a tree left running, or stopped', async () => {
  using scratch = new Scratch();
  const { subject, count } = await start(scratch);
  using _ = subject;
  assert.equal(criu('dump', '-t', `${subject.pid}`, '-D', scratch.path, '-R').status, 0);
  await countsOn(count);
  assert.equal(criu('dump', '-t', `${subject.pid}`, '-D', scratch.path, '-s').status, 0);
  await until('it is stopped', () => stateOf(subject.pid) === 'T');
  subject.signal(18);
  await countsOn(count);
});

test('what cannot be dumped is an error for each reason, and the tree goes on', async () => {
  using scratch = new Scratch();
  const { subject, count } = await start(scratch);
  using _ = subject;
  const missing = criu('dump', '-t', '4000000', '-D', scratch.path, '-o', 'none.log');
  assert.equal(missing.status, 1);
  assert.match(scratch.read('none.log'), /^Error \(/m);
  const refused = criu(
    'dump',
    '-t',
    `${subject.pid}`,
    '-D',
    scratch.path,
    '--track-mem',
    '--page-server',
    '-o',
    'dump.log',
  );
  assert.equal(refused.status, 1);
  assert.match(
    scratch.read('dump.log'),
    /^Error \(options\): --page-server .*\nError \(options\): --track-mem /m,
  );
  assert.ok(!existsSync(scratch.file('inventory.img')));
  await countsOn(count);
});

test('restore without -d ends with the root', async () => {
  using scratch = new Scratch();
  const { subject, count } = await start(scratch);
  using _ = subject;
  assert.equal(criu('dump', '-t', `${subject.pid}`, '-D', scratch.path).status, 0);
  await gone(subject.pid);
  const before = counted(count);
  const child = spawn(CRIU, ['restore', '-D', scratch.path], { stdio: 'ignore' });
  const exit = new Promise((resolve) => child.on('exit', resolve));
  await until('it counts', () => counted(count) > before);
  assert.equal(parentOf(subject.pid), child.pid);
  assert.equal(child.exitCode, null);
  subject.signal(15);
  assert.equal(await exit, 0);
});

test('--restore-sibling makes the root a child of the caller', async () => {
  using scratch = new Scratch();
  const { subject } = await start(scratch);
  using _ = subject;
  assert.equal(criu('dump', '-t', `${subject.pid}`, '-D', scratch.path).status, 0);
  await gone(subject.pid);
  const alone = criu('restore', '-D', scratch.path, '-S');
  assert.match(alone.stderr, /only makes sense with/);
  assert.equal(criu('restore', '-D', scratch.path, '-S', '-d').status, 0);
  assert.equal(parentOf(subject.pid), process.pid);
});

test('--exec-cmd makes a command the parent of the root', async () => {
  using scratch = new Scratch();
  const { subject } = await start(scratch);
  using _ = subject;
  assert.equal(criu('dump', '-t', `${subject.pid}`, '-D', scratch.path).status, 0);
  await gone(subject.pid);
  const script = 'grep PPid /proc/$1/status; echo $$; kill -TERM $1; exit 5';
  const ran = criu(
    'restore',
    '-D',
    scratch.path,
    '--exec-cmd',
    '--',
    'sh',
    '-c',
    script,
    'sh',
    `${subject.pid}`,
  );
  assert.equal(ran.status, 5, ran.stderr);
  const [, parent, shell] = /^PPid:\t(\d+)\n(\d+)\n$/.exec(ran.stdout) ?? [];
  assert.ok(parent !== undefined && parent === shell, ran.stdout);
});

test('action scripts are run at their points, with what they need to know', async () => {
  using scratch = new Scratch();
  const { subject } = await start(scratch);
  using _ = subject;
  const image = scratch.file('image');
  mkdirSync(image);
  const trace = scratch.file('trace');
  const state = `$(cut -d' ' -f3 /proc/${subject.pid}/stat 2>/dev/null)`;
  const script = scratch.script(
    'action',
    `echo "$CRTOOLS_SCRIPT_ACTION $CRTOOLS_INIT_PID $(test -e $CRTOOLS_IMAGE_DIR/inventory.img && echo image) ${state}" >> ${trace}; echo said`,
  );
  const args = ['-D', image, '-v4', '--action-script', script];
  assert.equal(criu('dump', '-t', `${subject.pid}`, ...args, '-o', 'dump.log').status, 0);
  await gone(subject.pid);
  assert.equal(criu('restore', ...args, '-d', '-o', 'restore.log').status, 0);
  const { pid } = subject;
  const lines = readFileSync(trace, 'utf8').trim().split('\n');
  assert.deepEqual(
    lines.map((line) => line.split(' ').slice(0, 3).join(' ')),
    [
      `pre-dump ${pid} `,
      `post-dump ${pid} image`,
      'pre-restore  image',
      `post-restore ${pid} image`,
      `pre-resume ${pid} image`,
      `post-resume ${pid} image`,
    ],
  );
  // The tree stands while the script decides what becomes of it.
  assert.match(lines[1] ?? '', / [tT]$/);
  assert.match(readFileSync(`${image}/dump.log`, 'utf8'), /^said$/m);
});

test('a post-dump script that fails keeps the tree running, and its status is ours', async () => {
  using scratch = new Scratch();
  const { subject, count } = await start(scratch);
  using _ = subject;
  const script = scratch.script('no', 'test "$CRTOOLS_SCRIPT_ACTION" != post-dump || exit 33');
  const dumped = criu('dump', '-t', `${subject.pid}`, '-D', scratch.path, '--action-script', script);
  assert.equal(dumped.status, 33, dumped.stderr);
  await countsOn(count);
  assert.ok(existsSync(scratch.file('inventory.img')));
});

test('a post-restore script that fails ends the tree', async () => {
  using scratch = new Scratch();
  const { subject } = await start(scratch);
  using _ = subject;
  const script = scratch.script('no', 'test "$CRTOOLS_SCRIPT_ACTION" != post-restore');
  assert.equal(criu('dump', '-t', `${subject.pid}`, '-D', scratch.path).status, 0);
  await gone(subject.pid);
  assert.equal(criu('restore', '-D', scratch.path, '-d', '--action-script', script).status, 1);
  assert.equal(stateOf(subject.pid), undefined);
  // A pidfile that is there already does the same.
  writeFileSync(scratch.file('root.pid'), '');
  assert.equal(criu('restore', '-D', scratch.path, '-d', '--pidfile', 'root.pid').status, 1);
  assert.equal(stateOf(subject.pid), undefined);
});

test('--status-fd gets a zero byte', async () => {
  using scratch = new Scratch();
  const { subject } = await start(scratch);
  using _ = subject;
  const { status, output } = spawnSync(
    CRIU,
    ['dump', '-R', '-t', `${subject.pid}`, '-D', scratch.path, '--status-fd', '3'],
    { stdio: ['ignore', 'ignore', 'ignore', 'pipe'] },
  );
  assert.equal(status, 0);
  assert.deepEqual([...(output[3] ?? [])], [0]);
});

test('closed standard descriptors and a vanished directory do not matter', async () => {
  using scratch = new Scratch();
  const { subject, count } = await start(scratch);
  using _ = subject;
  const here = scratch.file('here');
  mkdirSync(here);
  const image = scratch.file('image');
  mkdirSync(image);
  const script = 'cd "$1"; rmdir "$1"; shift; exec "$@" <&- >&- 2>&-';
  const run = (...args: string[]) => runCommand('sh', ['-c', script, 'sh', here, CRIU, ...args]).status;
  assert.equal(run('dump', '-t', `${subject.pid}`, '-D', image, '-o', 'd.log', '-v4'), 0);
  await gone(subject.pid);
  mkdirSync(here);
  const before = counted(count);
  assert.equal(run('restore', '-D', image, '-o', 'r.log', '-v4', '-d'), 0);
  await until('it counts', () => counted(count) > before);
});

test('configuration files count as words before the command line', async () => {
  using scratch = new Scratch();
  const { subject, count } = await start(scratch);
  using _ = subject;
  writeFileSync(
    scratch.file('c.conf'),
    `leave-running\nlog-file from.log # here\nimages-dir "${scratch.path}"\n`,
  );
  assert.equal(criu('dump', '-t', `${subject.pid}`, '--config', scratch.file('c.conf'), '-v3').status, 0);
  await countsOn(count);
  assert.match(scratch.read('from.log'), /Dumping finished successfully/);
  using reader = ImageReader.open(scratch.path);
  assert.equal(reader.read('pstree')[0]?.pid, subject.pid);
});

test('cpuinfo is written, compared, and understood', () => {
  using scratch = new Scratch();
  assert.equal(criu('cpuinfo', 'check', '-D', scratch.path).status, 1);
  assert.equal(criu('cpuinfo', 'dump', '-D', scratch.path).status, 0);
  assert.equal(criu('cpuinfo', 'check', '-D', scratch.path).status, 0);
  assert.equal(criu('cpuinfo', 'check', '-D', scratch.path, '--cpu-cap=all').status, 0);
  rmSync(scratch.file('cpuinfo.img'));
});
