import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  statSync,
} from 'node:fs';
import { test } from 'node:test';
import { Subject } from '../testing/subject.js';
import { formatBytes, formatTable, formatTime, printable } from './table.js';
import { counted, counting, countsOn, runCommand, Scratch, STASIS, stateOf, until } from './testing.js';

const stasis = (...args: string[]) => runCommand(STASIS, args);

test('units and tables', () => {
  assert.deepEqual([0, 1023, 1024, 1536, 5 * 2 ** 30].map(formatBytes), [
    '0 B',
    '1023 B',
    '1.0 KiB',
    '1.5 KiB',
    '5.0 GiB',
  ]);
  assert.deepEqual([0.04, 12.34, 1234].map(formatTime), ['0.0 ms', '12.3 ms', '1.23 s']);
  assert.equal(printable('a\u001b[2Jb\n'), 'a\\x1b[2Jb\\x0a');
  const columns = [
    { title: 'N', align: 'right' },
    { title: 'NAME', align: 'left' },
  ] as const;
  assert.equal(
    formatTable(columns, [
      ['1', 'a'],
      ['22', 'bcdef'],
    ]),
    ' N  NAME\n 1  a\n22  bcdef',
  );
});

test('mistakes of usage have status 2', () => {
  for (const args of [
    ['frobnicate'],
    ['checkpoint'],
    ['checkpoint', '--pid', 'x', '-o', 'y'],
    ['restore'],
    ['restore', 'a', 'b'],
    [],
  ])
    assert.equal(stasis(...args).status, 2, args.join(' '));
  assert.equal(stasis('--help').status, 0);
  assert.match(stasis('--version').stdout, /^\d+\.\d+\.\d+\n$/);
});

test('checkpoint, inspect, plan, restore; for people and for programs', async () => {
  using scratch = new Scratch();
  const count = scratch.file('count');
  using subject = Subject.python(counting(count));
  const { pid } = subject;
  await subject.expect(/ready/);
  const image = scratch.file('image');

  const running = stasis('checkpoint', '--pid', `${pid}`, '-o', image, '--leave-running');
  assert.equal(running.status, 0, running.stderr);
  assert.match(running.stdout, /left running\n\n *PID +PPID .*\n *\d+ +0 +1 +alive .* python3?\S*\n/);
  await countsOn(count);
  assert.equal(stasis('checkpoint', '--pid', `${pid}`, '-o', image).status, 4);
  const saved = stasis('checkpoint', '--pid', `${pid}`, '-o', image, '--overwrite', '--json');
  assert.equal(saved.status, 0, saved.stderr);
  const result = JSON.parse(saved.stdout);
  assert.equal(result.pid, pid);
  assert.equal(typeof result.frozen_ms, 'number');
  assert.equal(statSync(image).mode & 0o777, 0o700);

  assert.match(stasis('inspect', image, '--verify').stdout, /all checksums match/);
  assert.equal(JSON.parse(stasis('inspect', image, '--json').stdout).processes[0].pid, pid);
  assert.match(stasis('plan', image).stdout, /^\[0\] /m);

  await until('its pid is free', () => stateOf(pid) === undefined);
  const pidfile = scratch.file('root.pid');
  const before = counted(count);
  const restored = stasis('restore', image, '--detach', '--verify', '--pidfile', pidfile, '--json');
  assert.equal(restored.status, 0, restored.stderr);
  assert.equal(JSON.parse(restored.stdout).pid, pid);
  assert.equal(scratch.read('root.pid'), `${pid}\n`);
  await until('it counts', () => counted(count) > before);
  assert.equal(stasis('restore', image, '--detach').status, 1);

  appendFileSync(`${image}/pages-1.img`, 'x');
  const broken = stasis('inspect', image, '--verify', '--json');
  assert.equal(broken.status, 4);
  assert.ok(JSON.parse(broken.stdout).problems.length > 0);
  assert.equal(stasis('restore', image, '--detach', '--verify').status, 4);
});

test('an attached restore has the status of its root, and passes signals on', async () => {
  using scratch = new Scratch();
  const count = scratch.file('count');
  using subject = Subject.python(counting(count));
  await subject.expect(/ready/);
  const image = scratch.file('image');
  assert.equal(stasis('checkpoint', '--pid', `${subject.pid}`, '-o', image).status, 0);
  await until('its pid is free', () => stateOf(subject.pid) === undefined);
  const before = counted(count);
  const child = spawn(STASIS, ['restore', image], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (chunk) => {
    said += chunk;
  });
  const exit = new Promise((resolve) => child.on('exit', resolve));
  await until('it counts, and says so', () => counted(count) > before && said.includes('Restored pid'));
  child.kill('SIGTERM');
  assert.equal(await exit, 7);
});

test('what cannot be done has its status and an object', () => {
  using scratch = new Scratch();
  const refused = stasis('checkpoint', '--pid', '1', '-o', scratch.file('image'), '--json');
  assert.equal(refused.status, 3);
  assert.ok(JSON.parse(refused.stdout).error.refusals.length > 0);
  assert.ok(!existsSync(scratch.file('image/inventory.img')));
  assert.equal(stasis('check', '--pid', '1').status, 3);
  assert.equal(stasis('check').status, 0);
  assert.equal(stasis('inspect', '/nonexistent').status, 4);
});

test('no image goes where the restore would not take it from', async () => {
  using scratch = new Scratch();
  const count = scratch.file('count');
  using subject = Subject.python(counting(count));
  await subject.expect(/ready/);
  const places: readonly (readonly [name: string, spoil: (directory: string) => void, message: RegExp])[] = [
    ['open', (directory) => chmodSync(directory, 0o777), /can be written by others \(mode 777\); --trust/],
    ['foreign', (directory) => chownSync(directory, 65_534, 65_534), /belongs to another user.*--trust/],
  ];
  for (const [name, spoil, message] of places) {
    const image = scratch.file(name);
    mkdirSync(image);
    spoil(image);
    const arguments_ = ['checkpoint', '--pid', `${subject.pid}`, '-o', image, '--leave-running'];
    const refused = stasis(...arguments_);
    assert.equal(refused.status, 4, refused.stderr);
    assert.match(refused.stderr, message);
    assert.deepEqual(readdirSync(image), []);
    await countsOn(count);

    assert.equal(stasis(...arguments_, '--trust').status, 0);
    await countsOn(count);
    assert.equal(stasis('restore', image, '--detach').status, 4);
    // Its pid is taken.
    assert.equal(stasis('restore', image, '--detach', '--trust').status, 1);
  }
});

/** What of it is silent while its image waits. */
const CONNECTED = `
import socket
listener = socket.create_server(('127.0.0.1', 0))
connected = [socket.create_connection(listener.getsockname()), listener.accept()[0]]
`;

test('a tree in an external network namespace is restored in it', async () => {
  using scratch = new Scratch();
  const count = scratch.file('count');
  using keeper = Subject.start([
    'unshare',
    '--net',
    'sh',
    '-c',
    'ip link set lo up; echo up; exec sleep 600',
  ]);
  await keeper.expect(/up/);
  const there = `/proc/${keeper.pid}/ns/net`;
  const code = CONNECTED + counting(count);
  using subject = Subject.start(['nsenter', `--net=${there}`, '/usr/bin/python3', '-c', code]);
  await subject.expect(/ready/);
  const image = scratch.file('image');
  const save = ['checkpoint', '--pid', `${subject.pid}`, '-o', image, '--tcp-established'];
  const refused = stasis(...save);
  assert.equal(refused.status, 3);
  const external = /--external (net\[\d+\]):NAME/.exec(refused.stderr)?.[1];
  const saved = stasis(...save, '--external', `${external}:outside`);
  assert.equal(saved.status, 0, saved.stderr);
  assert.ok(stasis('check').stdout.includes(`in ${there}: stasis unlock ${image}`));
  await until('its pid is free', () => stateOf(subject.pid) === undefined);
  const lost = stasis('restore', image, '--detach');
  assert.equal(lost.status, 1);
  assert.match(
    lost.stderr,
    /external as outside: give it by --inherit-fd fd\[N\]:outside, or join one by --join-ns/,
  );
  const before = counted(count);
  const restored = stasis('restore', image, '--detach', '--join-ns', `net:${there}`);
  assert.equal(restored.status, 0, restored.stderr);
  await until('it counts', () => counted(count) > before);
  assert.equal(readlinkSync(`/proc/${subject.pid}/ns/net`), readlinkSync(there));
  assert.ok(!stasis('check').stdout.includes(`stasis unlock ${image}`));
});
