import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProcfsError } from './error.js';
import { parseStat } from './stat.js';
import { parseStatus } from './status.js';

const REST =
  'S 1 42 41 34816 42 4194560 101 202 3 4 55 66 77 88 20 0 3 0 123456 1081344 320 18446744073709551615 ' +
  '94000000000000 94000000001000 140700000000000 140700000000100 140300000000000 0 65536 4096 134815 1 0 0 17 1 ' +
  '5 2 7 8 9 94000000002000 94000000003000 94000000010000 140700000001000 140700000001010 140700000001010 ' +
  '140700000001fff'.replace('fff', '999') +
  ' 256\n';

for (const comm of ['a) R (b', 'two words', '', ')', '((', 'new\nline', 'x) S 1 2', ' lead']) {
  test(`stat: comm ${JSON.stringify(comm)}`, () => {
    const stat = parseStat(`42 (${comm}) ${REST}`);
    assert.equal(stat.comm, comm);
    assert.equal(stat.pid, 42);
    assert.equal(stat.state, 'S');
    assert.equal(stat.ppid, 1);
    assert.equal(stat.session, 41);
    assert.equal(stat.tty_nr, 34816);
    assert.deepEqual([stat.utime, stat.stime, stat.cutime, stat.cstime], [55, 66, 77, 88]);
    assert.equal(stat.rsslim, 0xffff_ffff_ffff_ffffn);
    assert.equal(stat.start_brk, 94000000010000n);
    assert.equal(stat.exit_signal, 17);
    assert.equal(stat.exit_code, 256);
  });
}

for (const text of [
  '',
  '42 (x',
  '42 (x) S 1 2',
  `42 (x) ${REST.replace('34816', '0x12')}`,
  `zz (x) ${REST}`,
]) {
  test(`stat refuses ${JSON.stringify(text.slice(0, 20))}`, () => {
    assert.throws(() => parseStat(text), ProcfsError);
  });
}

const STATUS = `Name:\t a\\nb\\\\c
Umask:\t0022
State:\tT (stopped)
Tgid:\t7
Ngid:\t0
Pid:\t8
PPid:\t1
TracerPid:\t3
Uid:\t1\t2\t3\t4294967295
Gid:\t5\t6\t7\t8
FDSize:\t64
Groups:\t4 24 1000 
NStgid:\t7\t1
NSpid:\t8\t2
NSpgid:\t7\t0
NSsid:\t7\t0
VmPeak:\t    3060 kB
RssAnon:\t     112 kB
THP_enabled:\t0
Threads:\t2
SigQ:\t1/96365
SigPnd:\t0000000000000001
ShdPnd:\t0000000000000000
SigBlk:\tfffffffe7ffbfeff
SigIgn:\t0000000000000000
SigCgt:\t0000000180000000
CapInh:\t0000000000000000
CapPrm:\t000001ffffffffff
CapEff:\t000001ffffffffff
CapBnd:\t000001ffffffffff
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
Seccomp_filters:\t3
`;

test('status', () => {
  const status = parseStatus(STATUS);
  assert.equal(status.name, ' a\nb\\c');
  assert.equal(status.umask, 0o22);
  assert.equal(status.state, 'T');
  assert.deepEqual(status.uid, { real: 1, effective: 2, saved: 3, fs: 4294967295 });
  assert.deepEqual(status.groups, [4, 24, 1000]);
  assert.deepEqual(status.nsPid, [8, 2]);
  assert.deepEqual(status.nsSid, [7, 0]);
  assert.equal(status.sigBlk, 0xfffffffe7ffbfeffn);
  assert.equal(status.capEff, 0x1ff_ffff_ffffn);
  assert.deepEqual([status.noNewPrivs, status.seccomp, status.seccompFilters], [true, 2, 3]);
  assert.equal(status.thpEnabled, false);
  assert.equal(status.raw.get('Ngid'), '0');
});

for (const [from, to] of [
  ['Uid:\t1\t2\t3\t4294967295', 'Uid:\t1\t2\t3'],
  ['SigBlk:\tfffffffe7ffbfeff', 'SigBlk:\tzz'],
  ['Pid:\t8\n', ''],
  ['SigQ:\t1/96365', 'SigQ:\t1'],
] as const) {
  test(`status refuses ${JSON.stringify(to)}`, () => {
    const status = parseStatus(STATUS.replace(`\n${from}`, `\n${to}`).replace(from, to));
    assert.throws(() => [status.uid, status.sigBlk, status.pid, status.sigQ], ProcfsError);
  });
}
