import assert from 'node:assert/strict';
import { test } from 'node:test';
import { auxEntries, parseAuxv } from './auxv.js';
import { decodeBytes, encodeBytes } from './bytes.js';
import { parseCgroup } from './cgroup.js';
import { splitStrings } from './cmdline.js';
import { ProcfsError } from './error.js';
import { parseIdMap, parseTimeOffsets } from './idmap.js';
import { parseLimits, UNLIMITED } from './limits.js';
import { parseMountinfo } from './mountinfo.js';
import { parseNamespaceLink } from './ns.js';
import { parseSyscall } from './scalars.js';
import { parseSched } from './sched.js';
import { parseUptime } from './system.js';
import { parseTimers } from './timers.js';
import { parseChildren } from './tree.js';

test('timers', () => {
  const [first, second] = parseTimers(
    'ID: 1\nsignal: 60/00007fff86e452a8\nnotify: signal/tid.2634\nClockID: 0\nID: 7\nsignal: 0/          (null)\nnotify: none/pid.1\nClockID: -6\n'.replace(
      '          (null)',
      '0',
    ),
  );
  assert.deepEqual(first, {
    id: 1,
    signal: 60,
    sigval: 0x7fff86e452a8n,
    notify: 'signal',
    target: 'tid',
    targetId: 2634,
    clock: 0,
  });
  assert.equal(second?.clock, -6);
  for (const text of [
    'ID: 1\n',
    'ID: 1\nsignal: x/1\nnotify: signal/tid.1\nClockID: 0\n',
    'ID: 1\nsignal: 1/1\nnotify: mail/tid.1\nClockID: 0\n',
    'id\n',
  ]) {
    assert.throws(() => parseTimers(text), ProcfsError);
  }
});

test('mountinfo', () => {
  const [a, b, c] = parseMountinfo(
    '36 35 98:0 /mnt\\0401 /mnt\\0112\\134\\043 rw,noatime shared:2 master:1 propagate_from:3 - ext3 /dev/root rw,errors=continue\n' +
      '37 36 0:5 /a//deleted /b rw unbindable - tmpfs  rw\n' +
      '38 36 0:6 net:[4026531840] /n rw - nsfs nsfs rw,x=a\\054b\n',
  );
  assert.deepEqual(
    [a?.root, a?.mountPoint, a?.shared, a?.master, a?.propagateFrom],
    ['/mnt 1', '/mnt\t2\\#', 2, 1, 3],
  );
  assert.deepEqual(a?.superOptions, ['rw', 'errors=continue']);
  assert.deepEqual([b?.source, b?.unbindable, b?.root], ['', true, '/a//deleted']);
  assert.deepEqual(c?.superOptions, ['rw', 'x=a,b']);
  for (const line of [
    '',
    '36 35 98:0 / /m rw ext3 /dev/root rw',
    '36 35 98:0 / /m rw odd:1 - ext3 a rw',
    '36 35 980 / /m rw - ext3 a rw',
    '36 35 9:0 / /m rw - ext3 a',
  ]) {
    assert.throws(() => parseMountinfo(`${line}\n`), ProcfsError);
  }
});

test('limits', () => {
  const names = [
    'cpu time',
    'file size',
    'data size',
    'stack size',
    'core file size',
    'resident set',
    'processes',
    'open files',
    'locked memory',
    'address space',
    'file locks',
    'pending signals',
    'msgqueue size',
    'nice priority',
    'realtime priority',
    'realtime timeout',
  ];
  const rows = names.map(
    (name, index) =>
      `Max ${name.padEnd(21)} ${String(index).padEnd(20)} unlimited            ${index === 13 ? '' : 'us'}`,
  );
  const text = `Limit                     Soft Limit           Hard Limit           Units     \n${rows.join('\n')}\n`;
  const limits = parseLimits(text);
  assert.deepEqual(limits[3], { cur: 3n, max: UNLIMITED });
  assert.deepEqual(limits[13], { cur: 13n, max: UNLIMITED });
  assert.throws(() => parseLimits(text.replace('unlimited', 'endless')), ProcfsError);
  assert.throws(() => parseLimits(text.replace('Max nice', 'Max mice')), ProcfsError);
});

test('small formats', () => {
  assert.deepEqual(parseCgroup('9:name=systemd:/a:b\n4:cpu,cpuacct:/\n0::/x (deleted)\n'), [
    { hierarchy: 9, controllers: ['name=systemd'], path: '/a:b', deleted: false },
    { hierarchy: 4, controllers: ['cpu', 'cpuacct'], path: '/', deleted: false },
    { hierarchy: 0, controllers: [], path: '/x', deleted: true },
  ]);
  assert.throws(() => parseCgroup('0:x\n'), ProcfsError);
  assert.deepEqual(parseNamespaceLink('pid_for_children', 'pid:[4026531836]'), {
    name: 'pid_for_children',
    type: 'pid',
    inode: 4026531836n,
  });
  assert.throws(() => parseNamespaceLink('pid', '/x'), ProcfsError);
  assert.deepEqual(parseSyscall('running\n'), { kind: 'running' });
  assert.deepEqual(parseSyscall('-1 0x7ff 0x400\n'), { kind: 'blocked', sp: 0x7ffn, pc: 0x400n });
  assert.equal(parseSyscall('0 0x3 0x7f 0x20000 0x22 0xffffffff 0x0 0x7ff 0x400\n').kind, 'syscall');
  assert.throws(() => parseSyscall('0 0x3 0x7f\n'), ProcfsError);
  assert.deepEqual(parseUptime('123.45 67.08\n'), { up_cs: 12345, idle_cs: 6708 });
  assert.deepEqual(parseIdMap('         0     100000      65536\n'), [
    { inside: 0, outside: 100000, count: 65536 },
  ]);
  assert.deepEqual(parseTimeOffsets('monotonic         -5         7\nboottime 0 0\n')[0], {
    clock: 'monotonic',
    sec: -5n,
    nsec: 7,
  });
  assert.deepEqual(parseChildren('12 13 '), [12, 13]);
  assert.deepEqual(parseChildren(''), []);
  assert.throws(() => parseChildren('12 x'), ProcfsError);
  assert.deepEqual(splitStrings(Buffer.from('a\0b c\0\0')), ['a', 'b c', '']);
  assert.throws(() => parseAuxv(Buffer.alloc(9)), ProcfsError);
  assert.deepEqual(
    auxEntries(parseAuxv(Buffer.from([6, ...Array(7).fill(0), 0, 16, ...Array(22).fill(0)]))),
    [{ type: 6n, value: 4096n }],
  );
});

test('bytes that are not UTF-8 survive', () => {
  for (const hex of [
    '',
    '616263',
    'c3a9',
    'ff',
    '61ff62',
    'c3',
    'f09f9880',
    'f09f98',
    '80c3a980',
    'eda080',
  ]) {
    const bytes = Buffer.from(hex, 'hex');
    assert.equal(encodeBytes(decodeBytes(bytes)).toString('hex'), hex);
  }
});

test('the notes of the scheduler', () => {
  const text =
    'sleep (11790, #threads: 1)\n---\nse.exec_start                                :      18391655.056287\nnr_switches                                  :                    2\nnr_voluntary_switches                        :                    1\n';
  assert.deepEqual(parseSched(text), { lastRun_ns: 18_391_655_056_287n, sleeps: 1 });
  assert.throws(() => parseSched(text.replace('voluntary', 'other')), ProcfsError);
  assert.throws(() => parseSched(''), ProcfsError);
});
