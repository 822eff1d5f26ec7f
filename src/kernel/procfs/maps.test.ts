import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProcfsError } from './error.js';
import { parseMaps } from './maps.js';
import { parseSmaps } from './smaps.js';

const PAD = ' '.repeat(20);
const LINES: readonly (readonly [string, Partial<ReturnType<typeof parseMaps>[number]>])[] = [
  [
    '55c320e1d000-55c320e1f000 r--p 00002000 fe:00 260386   /usr/bin/head',
    { path: '/usr/bin/head', offset: 0x2000n, major: 254, inode: 260386n },
  ],
  ['7ffe0000-7fff0000 rw-p 00000000 00:00 0 ', { path: '', inode: 0n, deleted: false }],
  ['7ffe0000-7fff0000 rw-p 00000000 00:00 0', { path: '' }],
  [`7ffe0000-7fff0000 rw-p 00000000 00:00 0 ${PAD}[stack]`, { path: '[stack]' }],
  [
    `7ffe0000-7fff0000 rw-s 00000000 00:01 5 ${PAD}/memfd:a b (deleted)`,
    { path: '/memfd:a b', deleted: true, perms: 'rw-s' },
  ],
  [`1000-2000 rw-s 00000000 00:01 5 ${PAD}/a (deleted) (deleted)`, { path: '/a (deleted)', deleted: true }],
  [`1000-2000 rw-s 00000000 00:01 5 ${PAD}/dev/zero (deleted)`, { path: '/dev/zero', deleted: true }],
  [`1000-2000 rw-s 00000000 00:01 5 ${PAD}/with\\012line`, { path: '/with\nline' }],
  [`1000-2000 rw-s 00000000 00:01 5 ${PAD}/back\\slash \\040`, { path: '/back\\slash \\040' }],
  [`1000-2000 rw-p 00000000 00:00 0 ${PAD}[anon:my heap]`, { path: '[anon:my heap]' }],
  [`1000-2000 rw-s 00000000 00:01 5 ${PAD}/größe  zwei`, { path: '/größe  zwei' }],
  [
    `1000-2000 rw-s 00000000 103:1ff 18446744073709551615 ${PAD}/x`,
    { major: 0x103, minor: 0x1ff, inode: 0xffff_ffff_ffff_ffffn },
  ],
  [
    `ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 ${PAD}[vsyscall]`,
    { start: 0xffffffffff600000n, end: 0xffffffffff601000n },
  ],
];

for (const [line, expected] of LINES) {
  test(`maps: ${line}`, () => {
    for (const text of [line, `${line}\n`]) {
      const [mapping, ...more] = parseMaps(text);
      assert.deepEqual(more, []);
      assert.deepEqual({ ...mapping, ...expected }, mapping);
    }
  });
}

for (const line of [
  'x',
  '1000 2000 r--p',
  '1000-2000 r-p 0 0:0 0',
  '1000-2000 r--p 0 00-00 0',
  '1000-2000 r--p 0 0:0 ',
  'G-2 r--p 0 0:0 0',
]) {
  test(`maps refuses ${line}`, () => {
    assert.throws(
      () => parseMaps(`1000-2000 rw-p 00000000 00:00 0\n${line}\n`),
      (error) => error instanceof ProcfsError && error.line === line,
    );
  });
}

const BLOCK = `Size:                  8 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                   8 kB
Pss:                   8 kB
Pss_Dirty:             0 kB
Shared_Clean:          0 kB
Shared_Dirty:          0 kB
Private_Clean:         8 kB
Private_Dirty:         0 kB
Referenced:            8 kB
Anonymous:            12 kB
KSM:                   0 kB
LazyFree:              0 kB
AnonHugePages:      2048 kB
ShmemPmdMapped:        0 kB
FilePmdMapped:         0 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb:       0 kB
Swap:                 16 kB
SwapPss:               0 kB
Locked:                4 kB
THPeligible:           1
ProtectionKey:         0
VmFlags: rd wr mr mw me ac sd 
`;

test('smaps', () => {
  const [first, second] = parseSmaps(
    `1000-3000 rw-p 00000000 00:00 0 \n${BLOCK}3000-4000 r--s 0 fe:01 7 /f (deleted)\n${BLOCK}`,
  );
  assert.equal(first?.anonymous, 12 * 1024);
  assert.equal(first?.swap, 16 * 1024);
  assert.equal(first?.locked, 4096);
  assert.equal(first?.anonHugePages, 2 << 20);
  assert.equal(first?.thpEligible, true);
  assert.deepEqual(first?.vmFlags, ['rd', 'wr', 'mr', 'mw', 'me', 'ac', 'sd']);
  assert.equal(second?.path, '/f');
  assert.equal(second?.deleted, true);
});

for (const [from, to] of [
  ['Rss:                   8 kB', 'Rss:                   8 MB'],
  ['Rss:                   8 kB', 'Rss:                   x kB'],
  ['VmFlags: rd wr', 'VmFlags: rd wrx'],
  ['VmFlags: rd wr mr mw me ac sd \n', ''],
  ['KernelPageSize:        4 kB\n', ''],
  ['THPeligible:           1', 'THPeligible:'],
  ['Locked:                4 kB', 'Locked'],
] as const) {
  test(`smaps refuses ${JSON.stringify(to)} for ${from.slice(0, 12)}`, () => {
    assert.throws(
      () => parseSmaps(`1000-3000 rw-p 00000000 00:00 0 \n${BLOCK.replace(from, to)}`),
      ProcfsError,
    );
  });
}

test('smaps of ten thousand mappings', () => {
  const parts: string[] = [];
  for (let index = 0; index < 10_000; index++) {
    const start = 0x7f0000000000 + index * 0x2000;
    parts.push(
      `${start.toString(16)}-${(start + 0x1000).toString(16)} rw-p 00000000 fe:00 ${index} ${PAD}/lib/x${index}.so\n`,
      BLOCK,
    );
  }
  const text = Buffer.from(parts.join('')).toString('latin1');
  assert.equal(parseSmaps(text).length, 10_000);
});
