import assert from 'node:assert/strict';
import test from 'node:test';
import { parseSmaps } from '../../kernel/procfs/smaps.js';
import { classify, isPrivate, VMA, withoutWorkspace } from './vma.js';

const SHMEM = '0:1';

function smaps(line: string, flags: string, pageSize = 4): string {
  const sizes = ['Rss', 'Anonymous', 'Swap', 'Locked'].map((key) => `${key}: 0 kB\n`).join('');
  return `${line}\n${sizes}KernelPageSize: ${pageSize} kB\nVmFlags: ${flags} \n`;
}

const R = VMA.REGULAR;

/** Line, VmFlags, expected status, flags, backing. */
const LINES: readonly (readonly [string, string, number, number, string])[] = [
  ['1000-2000 rw-p 00000000 00:00 0 ', 'rd wr mr mw me ac', R | VMA.ANON_PRIVATE, 0x22, 'anonymous'],
  [
    '1000-2000 rw-p 00000000 00:00 0          [heap]',
    'rd wr',
    R | VMA.HEAP | VMA.ANON_PRIVATE,
    0x22,
    'anonymous',
  ],
  ['1000-2000 rw-p 00000000 00:00 0          [stack]', 'rd wr gd', R | VMA.ANON_PRIVATE, 0x122, 'anonymous'],
  [
    '1000-2000 rw-p 00000000 00:00 0          [anon:a b]',
    'rd wr nr lo',
    R | VMA.ANON_PRIVATE,
    0x6022,
    'anonymous',
  ],
  ['1000-2000 rw-p 00000000 00:00 0 ', 'rd wr dp', R | VMA.ANON_PRIVATE, 0x28, 'anonymous'],
  [
    '1000-2000 r-xp 00000000 00:00 0          [vdso]',
    'rd ex de',
    R | VMA.VDSO | VMA.ANON_PRIVATE,
    0x22,
    'kernel',
  ],
  [
    '1000-2000 r--p 00000000 00:00 0          [vvar]',
    'rd pf io',
    R | VMA.VVAR | VMA.ANON_PRIVATE,
    0x22,
    'kernel',
  ],
  [
    '1000-2000 r--p 00000000 00:00 0          [vvar_vclock]',
    'pf io',
    R | VMA.VVAR | VMA.ANON_PRIVATE,
    0x22,
    'kernel',
  ],
  [
    'ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]',
    'ex',
    VMA.VSYSCALL | VMA.ANON_PRIVATE,
    0x22,
    'kernel',
  ],
  ['1000-2000 r-xp 00003000 fe:00 1234 /bin/true', 'rd ex', R | VMA.FILE_PRIVATE, 2, 'file'],
  ['1000-2000 rw-s 00000000 fe:00 1234 /tmp/x (deleted)', 'rd wr sh', R | VMA.FILE_SHARED, 1, 'file'],
  ['1000-2000 rw-s 00000000 00:19 12 /dev/shm/x', 'rd wr sh', R | VMA.FILE_SHARED, 1, 'file'],
  [
    '1000-2000 rw-s 00000000 00:01 12 /dev/zero (deleted)',
    'rd wr sh',
    R | VMA.MEMFD | VMA.FILE_SHARED,
    1,
    'memfd',
  ],
  [
    '1000-2000 rw-s 00000000 00:01 12 [anon_shmem:mine]',
    'rd wr sh',
    R | VMA.MEMFD | VMA.FILE_SHARED,
    1,
    'memfd',
  ],
  [
    '1000-2000 rw-p 00000000 00:01 12 /memfd:a b (deleted)',
    'rd wr',
    R | VMA.MEMFD | VMA.FILE_PRIVATE,
    2,
    'memfd',
  ],
  [
    '1000-2000 rw-s 00000000 00:01 7 /SYSV0000002a (deleted)',
    'rd wr sh',
    R | VMA.SYSVIPC | VMA.ANON_SHARED,
    0x21,
    'sysv',
  ],
  ['1000-2000 rw-p 00000000 00:05 5 /dev/zero', 'rd wr', R | VMA.FILE_PRIVATE, 2, 'file'],
  // Files whose names look like something else lie on another device.
  ['1000-2000 rw-p 00000000 fe:00 5 /memfd:x (deleted)', 'rd wr', R | VMA.FILE_PRIVATE, 2, 'file'],
  ['1000-2000 rw-s 00000000 fe:00 5 /SYSV00000000 (deleted)', 'rd wr', R | VMA.FILE_SHARED, 1, 'file'],
];

test('lines of smaps in the words of vma_entry', () => {
  for (const [line, vmFlags, status, flags, backing] of LINES) {
    const [mapping] = parseSmaps(smaps(line, vmFlags));
    assert.ok(mapping);
    const vma = classify(mapping, SHMEM);
    const found = [vma.status.toString(16), vma.flags.toString(16), vma.backing];
    assert.deepEqual(found, [status.toString(16), flags.toString(16), backing], line);
  }
});

test('huge pages carry their size in the flags', () => {
  const text = [
    smaps('200000-400000 rw-p 00000000 00:0f 3 /anon_hugepage (deleted)', 'rd wr ht', 2048),
    smaps('400000-600000 rw-s 00000000 00:0f 4 /anon_hugepage (deleted)', 'rd wr sh ht', 2048),
    smaps('40000000-80000000 rw-s 00000000 00:10 5 /memfd:big (deleted)', 'rd wr sh ht', 1048576),
  ].join('');
  const [own, shared, memfd] = parseSmaps(text).map((mapping) => classify(mapping, SHMEM));
  assert.equal(own?.flags, 0x40022 | (21 << 26));
  assert.equal(own?.status, R | VMA.ANON_PRIVATE);
  assert.equal(shared?.flags, 0x40001 | (21 << 26));
  assert.equal(shared?.backing, 'memfd');
  assert.equal(memfd?.flags, 0x40001 | (30 << 26));
});

test('advice becomes bits', () => {
  const [mapping] = parseSmaps(smaps('1000-2000 rw-p 00000000 00:00 0 ', 'rd wr sr dc dd mg hg wf'));
  assert.ok(mapping);
  assert.equal(
    classify(mapping, SHMEM).madv,
    (1n << 2n) | (1n << 10n) | (1n << 16n) | (1n << 12n) | (1n << 14n) | (1n << 18n),
  );
});

test('which mappings have pages in the pages file', () => {
  const kinds = LINES.map(([line, vmFlags]) => {
    const [mapping] = parseSmaps(smaps(line, vmFlags));
    return mapping !== undefined && isPrivate(classify(mapping, SHMEM));
  });
  const expected = [1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 1, 0];
  assert.deepEqual(kinds.map(Number), expected);
});

test('workspaces are no part of a process', () => {
  const text = ['1000-2000', '8000-9000', '9000-b000', 'c000-d000']
    .map((range) => smaps(`${range} rwxp 00000000 00:00 0 `, 'rd wr'))
    .join('');
  const left = withoutWorkspace(parseSmaps(text), 0x8000n).map(({ start }) => start);
  assert.deepEqual(left, [0x1000n, 0xc000n]);
  assert.equal(withoutWorkspace(parseSmaps(text), undefined).length, 4);
});
