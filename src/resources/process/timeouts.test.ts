import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SYSCALL_X86_64, type SyscallName } from '../../abi/syscalls.js';
import type { CurrentSyscall } from '../../kernel/procfs/scalars.js';
import { REGISTER_NAMES, type Registers } from '../../kernel/registers.js';
import { endsWrapper, hasTimeout, remainingOf, withTimeout } from './timeouts.js';

const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
const MINUS_ONE = 0xffff_ffffn;

function inCall(name: SyscallName, args: readonly bigint[]): CurrentSyscall {
  const six = [0, 1, 2, 3, 4, 5].map((index) => args[index] ?? 0n);
  return { kind: 'syscall', number: SYSCALL_X86_64[name], args: six, sp: 0n, pc: 0n };
}

test('the calls whose beginning is worth knowing', () => {
  const table: [SyscallName, readonly bigint[], boolean][] = [
    ['poll', [1n, 1n, 1000n], true],
    ['poll', [1n, 1n, MINUS_ONE], false],
    ['epoll_wait', [3n, 1n, 1n, 1000n], true],
    ['epoll_wait', [3n, 1n, 1n, MINUS_ONE], false],
    ['nanosleep', [0x1000n, 0n], true],
    ['nanosleep', [0x1000n, 0x1000n], false],
    ['clock_nanosleep', [1n, 0n, 0x1000n, 0n], true],
    ['clock_nanosleep', [1n, 1n, 0x1000n, 0n], false],
    // The time that a process has run.
    ['clock_nanosleep', [2n, 0n, 0x1000n, 0n], false],
    ['futex', [0x1000n, 128n, 0n, 0x2000n], true],
    ['futex', [0x1000n, 128n, 0n, 0n], false],
    // FUTEX_WAIT_BITSET has an absolute one.
    ['futex', [0x1000n, 137n, 0n, 0x2000n], false],
    ['ppoll', [1n, 1n, 0x1000n], false],
    ['read', [1n, 1n, 1n], false],
    ['restart_syscall', [], true],
  ];
  for (const [name, args, wanted] of table)
    assert.equal(hasTimeout(inCall(name, args)), wanted, `${name} ${args}`);
  assert.equal(hasTimeout({ kind: 'running' }), false);
});

const zero = Object.fromEntries(REGISTER_NAMES.map((name) => [name, 0n])) as Registers;

test('what remains is rounded up, and is never nothing', () => {
  const { poll } = SYSCALL_X86_64;
  const registers = { ...zero, orig_ax: BigInt(poll), dx: 1000n };
  assert.equal(remainingOf(registers, poll, 0, undefined), undefined);
  assert.equal(remainingOf(registers, poll, 0, 400_000_001n), 599_999_999n);
  assert.equal(remainingOf(registers, poll, 0, 2_000_000_000n), 1n);
  assert.equal(remainingOf({ ...registers, dx: MINUS_ONE }, poll, 0, 0n), undefined);
  assert.equal(withTimeout(registers, poll, 0, 599_000_001n)?.registers.dx, 600n);
  assert.equal(withTimeout(registers, poll, 0, 1n)?.registers.dx, 1n);
});

test('a register may be changed in front of the end of a wrapper only', () => {
  const table: [string, string, boolean][] = [
    ['glibc 2.36, one thread', '483d00f0ffff 775d c3', true],
    ['glibc 2.36, threads', '483d00f0ffff 7732 4489c7 8944240c e856c9f7ff', true],
    ['glibc 2.36, epoll_pwait', '483d00f0ffff 7732 89ef 89442404 e8dfcbf7ff', true],
    ['a bare return', 'c3', true],
    ['a loop', '483d00f0ffff 77f0 c3', false],
    ['made again after EINTR', '83f8fc 74ee c3', false],
    ['cut off', '483d00f0ffff 7732', false],
    ['nothing', '', false],
  ];
  for (const [name, code, wanted] of table) assert.equal(endsWrapper(bytes(code)), wanted, name);
});
