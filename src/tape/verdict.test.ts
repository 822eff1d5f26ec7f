import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SyscallName } from '../abi/syscalls.js';
import { SYSCALL_X86_64 } from '../abi/syscalls.js';
import { type Verdict, verdictOf } from './verdict.js';

const [KILL, ERRNO, ALLOW, TRAP, LOG, NOTIFY] = [
  0x80000000, 0x50001, 0x7fff0000, 0x30000, 0x7ffc0000, 0x7fc00000,
];
const LOAD_NUMBER = [0x20, 0, 0, 0] as const;
const LOAD_FIRST_ARGUMENT = [0x20, 0, 0, 16] as const;

function program(...instructions: (readonly [number, number, number, number])[]): Uint8Array {
  const bytes = new Uint8Array(instructions.length * 8);
  const view = new DataView(bytes.buffer);
  instructions.forEach(([code, whenTrue, whenFalse, k], index) => {
    view.setUint16(index * 8, code, true);
    view.setUint8(index * 8 + 2, whenTrue);
    view.setUint8(index * 8 + 3, whenFalse);
    view.setUint32(index * 8 + 4, k, true);
  });
  return bytes;
}

const equals = (call: SyscallName, whenTrue: number, whenFalse: number) =>
  [0x15, whenTrue, whenFalse, SYSCALL_X86_64[call]] as const;
const ret = (action: number) => [0x06, 0, 0, action] as const;

/** All but munmap comes to `action`. */
const onlyMunmap = (action: number) => program(LOAD_NUMBER, equals('munmap', 1, 0), ret(action), ret(ALLOW));

const CASES: readonly [string, readonly Uint8Array[], SyscallName, Verdict][] = [
  ['no filter', [], 'tgkill', 'made'],
  ['allowed by number', [onlyMunmap(KILL)], 'munmap', 'made'],
  ['killed by default', [onlyMunmap(KILL)], 'tgkill', 'fatal'],
  ['an error by default', [onlyMunmap(ERRNO)], 'tgkill', 'refused'],
  ['SIGSYS', [onlyMunmap(TRAP)], 'tgkill', 'fatal'],
  ['a listener', [onlyMunmap(NOTIFY)], 'tgkill', 'fatal'],
  ['logged', [onlyMunmap(LOG)], 'tgkill', 'made'],
  ['the strictest of two', [onlyMunmap(ERRNO), onlyMunmap(KILL)], 'tgkill', 'fatal'],
  [
    'an argument decides',
    [program(LOAD_FIRST_ARGUMENT, [0x15, 0, 1, 4], ret(KILL), ret(ALLOW))],
    'prctl',
    'fatal',
  ],
  ['a jump over', [program([0x05, 0, 0, 1], ret(KILL), ret(ALLOW))], 'prctl', 'made'],
  [
    'arithmetic, scratch memory and X',
    [
      program(
        LOAD_NUMBER,
        [0x54, 0, 0, 0xff],
        [0x02, 0, 0, 3],
        [0x61, 0, 0, 3],
        [0x00, 0, 0, 0],
        [0x0c, 0, 0, 0],
        equals('munmap', 1, 0),
        ret(KILL),
        ret(ALLOW),
      ),
    ],
    'munmap',
    'made',
  ],
  [
    'another architecture',
    [program([0x20, 0, 0, 4], [0x15, 1, 0, 0xc000003e], ret(KILL), ret(ALLOW))],
    'munmap',
    'made',
  ],
  ['it falls off its end', [program(LOAD_NUMBER)], 'munmap', 'fatal'],
];

for (const [name, filters, call, verdict] of CASES)
  test(`filters: ${name}`, () => {
    assert.equal(verdictOf(filters, call), verdict);
  });
