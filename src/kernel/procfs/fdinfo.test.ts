import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProcfsError } from './error.js';
import { parseFdinfo } from './fdinfo.js';
import { parseLocks } from './locks.js';

const HEAD = 'pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1061\n';

test('fdinfo: regular file with locks', () => {
  const info = parseFdinfo(
    'pos:\t9223372036854775807\nflags:\t0100002\nmnt_id:\t27\nlock:\t1: FLOCK  ADVISORY  WRITE 12 fe:00:123 0 EOF\n' +
      'lock:\t2: OFDLCK ADVISORY  READ -1 00:2a:9 10 19\n',
  );
  assert.equal(info.pos, 0x7fff_ffff_ffff_ffffn);
  assert.equal(info.flags, 0o100002);
  assert.equal(info.ino, undefined);
  assert.deepEqual(info.locks[0]?.end, undefined);
  assert.deepEqual(info.locks[1], {
    id: 2,
    waiting: 0,
    kind: 'OFDLCK',
    mode: 'ADVISORY',
    type: 'READ',
    pid: -1,
    major: 0,
    minor: 0x2a,
    inode: 9n,
    start: 10n,
    end: 19n,
  });
});

test('fdinfo: eventfd', () => {
  const info = parseFdinfo(`${HEAD}eventfd-count: fffffffffffffffe\neventfd-id: 3\neventfd-semaphore: 1\n`);
  assert.deepEqual(info.eventfd, { count: 0xffff_ffff_ffff_fffen, id: 3, semaphore: true });
  assert.deepEqual(parseFdinfo(`${HEAD}eventfd-count:               2a\n`).eventfd, { count: 42n });
});

test('fdinfo: epoll', () => {
  const info = parseFdinfo(
    `${HEAD}tfd:        5 events: 80000019 data:         deadbeef  pos:0 ino:a1 sdev:f\ntfd:        6 events:       1a data: ffffffffffffffff\n`,
  );
  assert.deepEqual(info.epoll, [
    { tfd: 5, events: 0x80000019, data: 0xdeadbeefn, pos: 0n, ino: 0xa1n, sdev: 0xf },
    { tfd: 6, events: 0x1a, data: 0xffff_ffff_ffff_ffffn, pos: undefined, ino: undefined, sdev: undefined },
  ]);
});

test('fdinfo: signalfd and timerfd', () => {
  assert.equal(parseFdinfo(`${HEAD}sigmask:\t8000000000000200\n`).sigmask, 0x8000000000000200n);
  const info = parseFdinfo(
    `${HEAD}clockid: 1\nticks: 7\nsettime flags: 03\nit_value: (0, 49406829)\nit_interval: (1, 0)\n`,
  );
  assert.deepEqual(info.timerfd, {
    clockid: 1,
    ticks: 7n,
    settimeFlags: 3,
    value: { sec: 0n, nsec: 49406829n },
    interval: { sec: 1n, nsec: 0n },
  });
});

test('fdinfo: inotify and fanotify', () => {
  const info = parseFdinfo(
    `${HEAD}inotify wd:2 ino:7ef82a sdev:800001 mask:800afff ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:2af87e00220ffd73\n` +
      'inotify wd:a ino:1 sdev:17 mask:2 ignored_mask:0 \n' +
      'fanotify flags:10 event-flags:88002\n' +
      'fanotify ino:68f71 sdev:800013 mflags:0 mask:1 ignored_mask:40000000 fhandle-bytes:4 fhandle-type:1 f_handle:718f0600\n' +
      'fanotify mnt_id:12 mflags:40 mask:38 ignored_mask:40000003\n' +
      'fanotify sdev:800013 mflags:0 mask:38 ignored_mask:0\n',
  );
  assert.deepEqual(info.inotify[0]?.handle, { bytes: 8, type: 1, handle: '2af87e00220ffd73' });
  assert.equal(info.inotify[1]?.wd, 10);
  assert.equal(info.inotify[1]?.handle, undefined);
  assert.deepEqual(info.fanotifyGroup, { flags: 0x10, eventFlags: 0x88002 });
  assert.deepEqual(
    info.fanotify.map((mark) => [mark.ino, mark.mntId, mark.sdev]),
    [
      [0x68f71n, undefined, 0x800013],
      [undefined, 0x12, undefined],
      [undefined, undefined, 0x800013],
    ],
  );
});

test('fdinfo: pidfd, tty, socket, bpf', () => {
  assert.deepEqual(parseFdinfo(`${HEAD}Pid:\t12\nNSpid:\t12\t3\n`).pidfd, { pid: 12, nsPid: [12, 3] });
  assert.deepEqual(parseFdinfo(`${HEAD}Pid:\t-1\n`).pidfd, { pid: -1, nsPid: [] });
  assert.equal(parseFdinfo(`${HEAD}tty-index:\t4\n`).ttyIndex, 4);
  assert.equal(parseFdinfo(`${HEAD}scm_fds: 2\n`).scmFds, 2);
  const bpf = parseFdinfo(`${HEAD}map_type:\t2\nkey_size:\t4\nmap_flags:\t0x0\n`);
  assert.equal(bpf.fields.get('map_type'), '2');
  assert.equal(bpf.fields.get('map_flags'), '0x0');
});

for (const text of [
  '',
  'pos:\t0\nflags:\t09\nmnt_id:\t1\n',
  'pos:\t0\nflags:\t02\n',
  `${HEAD}it_value: 1, 2\n`,
  `${HEAD}tfd: 5 events: zz data: 0\n`,
  `${HEAD}inotify wd:2 ino:7 sdev:8 mask:8 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:2a\n`,
  `${HEAD}fanotify what:1\n`,
  `${HEAD}eventfd-id: 3\n`,
  `${HEAD}lock:\t1: NEW    ADVISORY  WRITE 12 fe:00:123 0 EOF\n`,
]) {
  test(`fdinfo refuses ${JSON.stringify(text.replace(HEAD, ''))}`, () => {
    assert.throws(() => parseFdinfo(text), ProcfsError);
  });
}

test('locks', () => {
  const locks = parseLocks(
    '1: POSIX  ADVISORY  WRITE 3568 fd:00:2531452 1073741826 1073742335\n1: -> POSIX  ADVISORY  WRITE 4 fd:00:2531452 0 EOF\n' +
      '1:  -> FLOCK  ADVISORY  READ 5 103:1:18446744073709551615 0 EOF\n2: LEASE  ACTIVE    READ 6 fe:00:1 0 EOF\n',
  );
  assert.deepEqual(
    locks.map((lock) => lock.waiting),
    [0, 1, 2, 0],
  );
  assert.deepEqual(
    locks.map((lock) => lock.kind),
    ['POSIX', 'POSIX', 'FLOCK', 'LEASE'],
  );
  assert.equal(locks[0]?.end, 1073742335n);
  assert.equal(locks[2]?.major, 0x103);
  assert.equal(locks[3]?.mode, 'ACTIVE');
  assert.throws(() => parseLocks('1: POSIX  ADVISORY  WRITE 3568 <none>:0 0 EOF\n'), ProcfsError);
});
