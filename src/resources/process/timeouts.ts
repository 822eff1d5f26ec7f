import { SYSCALL_X86_64 } from '../../abi/syscalls.js';
import { type CurrentSyscall, readWchan } from '../../kernel/procfs/scalars.js';
import type { Registers } from '../../kernel/registers.js';
import { readRemote, writeRemote } from '../../kernel/remote.js';

/**
 * Waits of relative length. What remains of one that was interrupted is known to the kernel alone: except where it
 * is written back for the program, it follows from when the wait began.
 */
const { poll, nanosleep, clock_nanosleep, futex, epoll_wait, epoll_pwait, restart_syscall } = SYSCALL_X86_64;

const FUTEX_WAIT = 0n;
const FUTEX_PRIVATE_FLAG = 128n;
/** CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI: those that go on while nobody runs. */
const CLOCKS = new Set([0n, 1n, 7n, 11n]);
const NS_PER_MS = 1_000_000n;
const NS_PER_S = 1_000_000_000n;

type Arguments = Pick<Registers, 'di' | 'si' | 'dx' | 'r10'>;
type ArgumentName = keyof Arguments;

/** Where a call's timeout stands: in a register, in milliseconds, or as a timespec in memory. */
interface Timeout {
  readonly register: ArgumentName;
  readonly isPointer: boolean;
  /** The register that says where to the kernel writes what remains, each time that it interrupts the call. */
  readonly rest?: ArgumentName;
}

/** Undefined for other calls, and where the wait has no end or an absolute one. */
function timeoutOf(call: number, at: Arguments): Timeout | undefined {
  switch (call) {
    case poll:
      return isEndless(at.dx) ? undefined : { register: 'dx', isPointer: false };
    case epoll_wait:
    case epoll_pwait:
      return isEndless(at.r10) ? undefined : { register: 'r10', isPointer: false };
    case nanosleep:
      return { register: 'di', isPointer: true, rest: 'si' };
    case clock_nanosleep:
      if (!CLOCKS.has(BigInt.asUintN(32, at.di)) || BigInt.asUintN(32, at.si) !== 0n) return undefined;
      return { register: 'dx', isPointer: true, rest: 'r10' };
    case futex:
      if ((BigInt.asUintN(32, at.si) & ~FUTEX_PRIVATE_FLAG) !== FUTEX_WAIT || at.r10 === 0n) return undefined;
      return { register: 'r10', isPointer: true };
    default:
      return undefined;
  }
}

const isEndless = (timeout_ms: bigint) => BigInt.asIntN(32, timeout_ms) < 0n;

/** A sleeping thread's call: is it one of which it is worth knowing when it began? Perhaps, of a call made again. */
export function hasTimeout(current: CurrentSyscall): boolean {
  if (current.kind !== 'syscall') return false;
  if (current.number === restart_syscall) return true;
  const [di = 0n, si = 0n, dx = 0n, r10 = 0n] = current.args;
  const at = { di, si, dx, r10 };
  const timeout = timeoutOf(current.number, at);
  return timeout !== undefined && (timeout.rest === undefined || at[timeout.rest] === 0n);
}

/** The first argument of clock_nanosleep(2) is a clock, that of nanosleep(2) an address; no program has the lowest page. */
const PAGE = 4096n;

/**
 * The call that a sleeping thread makes again: its registers say restart_syscall, but the kernel function it sleeps in
 * is the call's own (fs/select.c, kernel/futex/waitwake.c; posix-cpu-timers.c and alarmtimer.c have other names). Those of
 * hrtimer.c count as the scheduler's, which are passed over (__sched): what is left is how any call is entered.
 * Undefined where that is not told.
 */
export function callMadeAgain(pid: number, tid: number, current: CurrentSyscall): number | undefined {
  if (current.kind !== 'syscall' || current.number !== restart_syscall) return undefined;
  const place = readWchan(pid, { tid });
  if (place.startsWith('futex_')) return futex;
  if (/^(do_(sys|restart)_poll|poll_schedule_timeout)/.test(place)) return poll;
  if (!/^(do_syscall_64|x64_sys_call|__x64_sys_restart_syscall|hrtimer_nanosleep)/.test(place))
    return undefined;
  const [first = 0n] = current.args;
  return first < PAGE ? clock_nanosleep : nanosleep;
}

/**
 * What is left of the timeout of `call`, which a stop has interrupted: at least a nanosecond, and never less than there
 * is. `elapsed_ns` is how long it has waited at least, if that is known. Undefined where nothing is known.
 */
export function remainingOf(
  registers: Registers,
  call: number,
  tid: number,
  elapsed_ns: bigint | undefined,
): bigint | undefined {
  const timeout = timeoutOf(call, registers);
  if (timeout === undefined) return undefined;
  const rest = timeout.rest === undefined ? 0n : registers[timeout.rest];
  try {
    const remaining = rest !== 0n ? timespecAt(tid, rest) : lessElapsed(registers, timeout, tid, elapsed_ns);
    return remaining === undefined || remaining > 0n ? remaining : 1n;
  } catch {
    // Memory that cannot be read: the call itself will say so.
    return undefined;
  }
}

function lessElapsed(
  registers: Registers,
  { register, isPointer }: Timeout,
  tid: number,
  elapsed_ns: bigint | undefined,
): bigint | undefined {
  if (elapsed_ns === undefined) return undefined;
  const value = registers[register];
  const length_ns = isPointer ? timespecAt(tid, value) : BigInt.asIntN(32, value) * NS_PER_MS;
  return length_ns - elapsed_ns;
}

const TIMESPEC_SIZE = 16;

function timespecAt(tid: number, address: bigint): bigint {
  const { buffer, byteOffset } = readRemote(tid, address, TIMESPEC_SIZE);
  const view = new DataView(buffer, byteOffset);
  return view.getBigInt64(0, true) * NS_PER_S + view.getBigInt64(8, true);
}

function timespec(duration_ns: bigint): Uint8Array {
  const bytes = new Uint8Array(TIMESPEC_SIZE);
  const view = new DataView(bytes.buffer);
  view.setBigInt64(0, duration_ns / NS_PER_S, true);
  view.setBigInt64(8, duration_ns % NS_PER_S, true);
  return bytes;
}

const RED_ZONE = 128n;

/**
 * Registers that make `call` with another timeout, and what puts back what was changed in memory for it: a timespec
 * lies below the red zone of a thread's stack until the call has been entered. Throws where there is no such memory.
 */
export function withTimeout(
  registers: Registers,
  call: number,
  tid: number,
  length_ns: bigint,
): { readonly registers: Registers; readonly undo: () => void } | undefined {
  const timeout = timeoutOf(call, registers);
  if (timeout === undefined) return undefined;
  if (!timeout.isPointer) {
    const length_ms = (length_ns + NS_PER_MS - 1n) / NS_PER_MS;
    return { registers: { ...registers, [timeout.register]: length_ms }, undo: () => {} };
  }
  const address = ((registers.sp - RED_ZONE) & ~15n) - BigInt(TIMESPEC_SIZE);
  const before = readRemote(tid, address, TIMESPEC_SIZE).slice();
  // SAFETY: no other thread of the process runs before `undo`.
  writeRemote(tid, address, timespec(length_ns));
  return {
    registers: { ...registers, [timeout.register]: address },
    undo: () => writeRemote(tid, address, before),
  };
}

/** Calls with a timeout in a register. */
const IN_REGISTER = new Set<number>([epoll_wait, epoll_pwait, poll]);
const CODE_AFTER = 32;

/**
 * epoll_wait(2), and poll(2) after a restore, can be made again with a shorter timeout in their registers, which the
 * next dump then sees. A shorter timeout may be put there where the
 * program cannot find it afterwards: a system call keeps the register, so code that was compiled into a loop may use it
 * again. After a wrapper's it is dead.
 */
export function mayShorten(registers: Registers, call: number, tid: number): boolean {
  if (!IN_REGISTER.has(call) || timeoutOf(call, registers) === undefined) return false;
  try {
    return endsWrapper(readRemote(tid, registers.ip, CODE_AFTER));
  } catch {
    return false;
  }
}

const JA = 0x77;

/** Instructions between `syscall` and the return of a C library's wrapper; those in front are tried first. */
const HARMLESS: readonly { readonly code: readonly number[]; readonly length: number }[] = [
  { code: [0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff], length: 6 }, // cmp rax, -4096
  { code: [JA], length: 2 }, // ja: to where errno is set
  { code: [0x44, 0x89, 0xc7], length: 3 }, // mov edi, r8d
  { code: [0x89, 0xef], length: 2 }, // mov edi, ebp
  { code: [0x89, 0xc5], length: 2 }, // mov ebp, eax
  { code: [0x89, 0x44, 0x24], length: 4 }, // mov [rsp + n], eax
  { code: [0x48, 0x89, 0x44, 0x24], length: 5 }, // mov [rsp + n], rax
  { code: [0x48, 0x83, 0xc4], length: 4 }, // add rsp, n
  { code: [0x5b], length: 1 }, // pop rbx
  { code: [0x5d], length: 1 }, // pop rbp
];
const RET = 0xc3;
const CALL = 0xe8;

/** Does this code return, or call another function (which may change the register), without a jump back? */
export function endsWrapper(code: Uint8Array): boolean {
  for (let at = 0; at < code.length; ) {
    const rest = code.subarray(at);
    if (rest[0] === RET || rest[0] === CALL) return true;
    const found = HARMLESS.find((one) => one.code.every((byte, index) => rest[index] === byte));
    if (found === undefined || (rest[0] === JA && (rest[1] ?? 0) > 0x7f)) return false;
    at += found.length;
  }
  return false;
}
