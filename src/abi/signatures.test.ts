import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ERRNO, errnoMessage, errnoName, errnoNumber } from './errno.js';
import * as fcntl from './fcntl.js';
import { signalBit, signalName, signalNumber, signalsOf } from './signal.js';
import { formatCall, SIGNATURES } from './signatures.js';
import { SYSCALL_X86_64, type SyscallName } from './syscalls.js';

test('every signature is of a call that exists, with six arguments at most', () => {
  for (const [name, signature] of Object.entries(SIGNATURES)) {
    assert.ok(Object.hasOwn(SYSCALL_X86_64, name), name);
    assert.ok(signature.length <= 6, name);
  }
});

const CALLS: readonly (readonly [SyscallName, readonly bigint[], string])[] = [
  [
    'mmap',
    [0n, 4096n, 3n, 0x22n, -1n, 0n],
    'mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0x0)',
  ],
  [
    'mmap',
    [0x1000n, 4096n, 0n, 0x100011n, 3n, 0x2000n],
    'mmap(0x1000, 4096, PROT_NONE, MAP_SHARED|MAP_FIXED|MAP_FIXED_NOREPLACE, 3, 0x2000)',
  ],
  [
    'openat',
    [0xffffff9cn, 0x7f00n, BigInt(fcntl.O_RDWR | fcntl.O_SYNC | fcntl.O_CLOEXEC), 0o644n],
    'openat(AT_FDCWD, 0x7f00, O_RDWR|O_SYNC|O_CLOEXEC, 0644)',
  ],
  ['openat', [3n, 0x7f00n, 0n, 0n], 'openat(3, 0x7f00, O_RDONLY, 0)'],
  [
    'openat',
    [-100n, 0x7f00n, BigInt(fcntl.O_TMPFILE | 1), 0n],
    'openat(AT_FDCWD, 0x7f00, O_WRONLY|O_TMPFILE, 0)',
  ],
  ['fcntl', [3n, 2n, 1n], 'fcntl(3, F_SETFD, FD_CLOEXEC)'],
  ['fcntl', [3n, 4n, 2048n], 'fcntl(3, F_SETFL, O_RDONLY|O_NONBLOCK)'],
  ['fcntl', [3n, 1033n, 5n], 'fcntl(3, F_ADD_SEALS, F_SEAL_SEAL|F_SEAL_GROW)'],
  ['socket', [1n, 0x80002n, 0n], 'socket(AF_UNIX, SOCK_DGRAM|SOCK_CLOEXEC, IPPROTO_IP)'],
  ['setsockopt', [3n, 6n, 19n, 0x10n, 4n], 'setsockopt(3, SOL_TCP, TCP_REPAIR, 0x10, 4)'],
  ['setsockopt', [3n, 1n, 42n, 0x10n, 4n], 'setsockopt(3, SOL_SOCKET, SO_PEEK_OFF, 0x10, 4)'],
  ['setsockopt', [3n, 263n, 42n, 0x10n, 4n], 'setsockopt(3, SOL_PACKET, 42, 0x10, 4)'],
  ['futex', [0x10n, 129n, 1n, 0n, 0n, 0n], 'futex(0x10, FUTEX_WAKE|FUTEX_PRIVATE_FLAG, 1, 0x0, NULL, 0x0)'],
  ['tgkill', [1n, 2n, 23n], 'tgkill(1, 2, SIGURG)'],
  ['kill', [-1n, 0n], 'kill(-1, 0)'],
  ['clone', [0x4111n, 0n, 0n, 0n, 0n], 'clone(SIGCHLD|CLONE_VM|CLONE_VFORK, NULL, NULL, NULL, NULL)'],
  ['prctl', [35n, 14n, 1n, 2n, 0n], 'prctl(PR_SET_MM, 0xe, 0x1, 0x2, 0x0)'],
  ['prctl', [22n, 2n, 0n, 0n, 0n], 'prctl(PR_SET_SECCOMP, 0x2, 0x0, 0x0, 0x0)'],
  ['prlimit64', [0n, 7n, 0n, 1n], 'prlimit64(0, RLIMIT_NOFILE, NULL, 0x1)'],
  ['ioctl', [3n, 0xc0606610n, 0x20n], 'ioctl(3, PAGEMAP_SCAN, 0x20)'],
  ['ioctl', [3n, 0x5413n, 0x20n], 'ioctl(3, TIOCGWINSZ, 0x20)'],
  ['ioctl', [3n, 0x80045430n, 0x20n], 'ioctl(3, TIOCGPTN, 0x20)'],
  ['ioctl', [3n, 0x12345n, 0n], 'ioctl(3, 0x12345, 0x0)'],
  ['ptrace', [0x4206n, 12n, 0n, 0x100000n], 'ptrace(PTRACE_SEIZE, 12, 0x0, 0x100000)'],
  ['lseek', [3n, -1n, 1n], 'lseek(3, -1, SEEK_CUR)'],
  ['close_range', [3n, 0xffffffffn, 2n], 'close_range(3, 4294967295, CLOSE_RANGE_UNSHARE)'],
  ['wait4', [-1n, 0n, 0x40000001n, 0n], 'wait4(-1, NULL, WNOHANG|__WALL, NULL)'],
  ['mount', [0n, 0x10n, 0n, 0x44000n, 0n], 'mount(NULL, 0x10, NULL, MS_REC|MS_PRIVATE, NULL)'],
  ['umount2', [0x10n, 2n], 'umount2(0x10, MNT_DETACH)'],
  [
    'mbind',
    [0x1000n, 4096n, 0x8002n, 0x10n, 64n, 2n],
    'mbind(0x1000, 4096, MPOL_BIND|MPOL_F_STATIC_NODES, 0x10, 64, MPOL_MF_MOVE)',
  ],
  ['arch_prctl', [0x1002n, 0x10n], 'arch_prctl(ARCH_SET_FS, 0x10)'],
  ['timerfd_create', [1n, 0o2004000n], 'timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK|TFD_CLOEXEC)'],
  ['personality', [0x40000n], 'personality(ADDR_NO_RANDOMIZE)'],
  ['getpid', [], 'getpid()'],
  ['landlock_restrict_self', [3n, 0n], 'landlock_restrict_self(3, 0)'],
];

for (const [call, args, text] of CALLS) test(text, () => assert.equal(formatCall(call, args), text));

test('errno names, numbers and messages', () => {
  assert.equal(errnoName(2), 'ENOENT');
  assert.equal(errnoName(-11), 'EAGAIN');
  assert.equal(errnoName(9999), '9999');
  assert.equal(errnoMessage(2), 'No such file or directory');
  assert.equal(errnoNumber('ESRCH'), 3);
  assert.equal(errnoNumber('toString'), undefined);
  for (const [name, number] of Object.entries(ERRNO)) assert.equal(errnoName(number), name);
});

test('signal names and masks', () => {
  for (let signal = 1; signal <= 64; signal++) assert.equal(signalNumber(signalName(signal)), signal);
  assert.equal(signalName(34), 'SIGRTMIN+2');
  assert.equal(signalNumber('term'), 15);
  assert.equal(signalNumber('nothing'), undefined);
  assert.equal(signalNumber('SIGRTMIN+40'), undefined);
  assert.deepEqual(signalsOf(signalBit(9) | signalBit(64)), [9, 64]);
});
