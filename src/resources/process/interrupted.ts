import { SYSCALL_X86_64, type SyscallName } from '../../abi/syscalls.js';
import { NO_SYSCALL, type Registers } from '../../kernel/registers.js';
import { readRemote } from '../../kernel/remote.js';

/**
 * System calls that the freeze interrupted.
 *
 * A stop makes a blocked call return, inside the kernel, with one of the codes below or −EINTR; what the program gets
 * to see is decided when the task goes on (arch/x86/kernel/signal.c). With no handler to run, the kernel makes a call
 * that ended in a code again. Two things are missing: calls that answer −EINTR straight away would tell the program
 * of a signal there never was, and a restored task has no kernel memory of a call's beginning (its restart block).
 */
const ERESTARTSYS = -512n;
const ERESTARTNOINTR = -513n;
const ERESTARTNOHAND = -514n;
const ERESTART_RESTARTBLOCK = -516n;
const EINTR = -4n;

/** `syscall`, `int $0x80` and `sysenter` are two bytes each. */
const SYSCALL_LENGTH = 2n;

/**
 * Calls that any stop ends with −EINTR: signal(7), "Interruption of system calls and library functions by stop
 * signals", and the sources (fs/eventpoll.c ep_poll, ipc/sem.c, kernel/signal.c do_sigtimedwait, fs/aio.c,
 * include/net/sock.h sock_intr_errno for sockets with a timeout, through whatever call they are used). None has had
 * an effect when it says so, so making it again is right. close(2) is the call for which that is wrong, and is absent.
 */
const ENDS_WITH_EINTR: readonly SyscallName[] = [
  'epoll_wait', 'epoll_pwait', 'epoll_pwait2',
  'semop', 'semtimedop',
  'rt_sigtimedwait',
  'io_getevents', 'io_pgetevents', 'io_uring_enter',
  'accept', 'accept4', 'connect',
  'recvfrom', 'recvmsg', 'recvmmsg', 'sendto', 'sendmsg', 'sendmmsg',
  'read', 'readv', 'preadv2', 'write', 'writev', 'pwritev2', 'sendfile', 'splice',
]; // biome-ignore format: one family a line

const RESTARTED = new Set(ENDS_WITH_EINTR.map((name) => BigInt(SYSCALL_X86_64[name])));
const RESTART_SYSCALL = BigInt(SYSCALL_X86_64.restart_syscall);

/** Calls whose beginning the kernel keeps in a restart block: sleeps and waits of relative length. */
const WITH_RESTART_BLOCK = new Set(
  (['nanosleep', 'clock_nanosleep', 'poll', 'futex'] as const).map((name) => SYSCALL_X86_64[name] as number),
);

const inCall = (registers: Registers) =>
  registers.orig_ax !== NO_SYSCALL && BigInt.asIntN(64, registers.orig_ax) >= 0n;
const answer = (registers: Registers) => BigInt.asIntN(64, registers.ax);

/**
 * What a frozen thread's registers must be so that it goes on as if it had not been stopped. A call that ended with
 * −EINTR for us gets the code with which the kernel makes it again, unless a handler really is to run: then the
 * program sees its EINTR. Calls that the kernel restarts anyway stay as they are, and keep their restart block.
 */
export function cureForThaw(registers: Registers): Registers {
  if (!inCall(registers) || answer(registers) !== EINTR || !RESTARTED.has(registers.orig_ax))
    return registers;
  return { ...registers, ax: BigInt.asUintN(64, ERESTARTNOHAND) };
}

/** Does the kernel keep the beginning of the call that a stop interrupted? */
export function hasRestartBlock(registers: Registers): boolean {
  return inCall(registers) && answer(registers) === ERESTART_RESTARTBLOCK;
}

/** The registers of a call that goes on with its restart block, from those of one that is decided about. */
export function goingOn(registers: Registers): Registers {
  return { ...registers, ax: BigInt.asUintN(64, ERESTART_RESTARTBLOCK) };
}

/** Where to look for what the registers do not say. */
export interface InterruptedContext {
  /** The thread, whose memory holds the instructions; without it a restart of a restart becomes −EINTR. */
  readonly tid?: number;
  /** The number of the call that is made again by restart_syscall, where it is known from before the stop. */
  readonly call?: number | undefined;
}

/** The number of the call that a stop interrupted, which is to be made again; undefined where there is none or it is not known. */
export function trueCall(registers: Registers, context: InterruptedContext): number | undefined {
  if (!inCall(registers) || restartCode(registers) === undefined) return undefined;
  const call = callOf(registers, context);
  return call === undefined ? undefined : Number(call);
}

/**
 * What the image holds: the call rewound to its instruction, ready to be made again, as CRIU has it too. A call with
 * a restart block is made again from its beginning; what is known of its remaining time (timeouts.ts) stands beside the
 * image, and gets back into a restart block when the thread is restored. Only where even the call is unknown
 * the program gets −EINTR, which these calls may answer.
 */
export function registersForImage(registers: Registers, context: InterruptedContext = {}): Registers {
  const cured = cureForThaw(registers);
  if (!inCall(cured)) return cured;
  switch (answer(cured)) {
    case ERESTARTSYS:
    case ERESTARTNOINTR:
    case ERESTARTNOHAND:
      return rewind(cured, cured.orig_ax);
    case ERESTART_RESTARTBLOCK: {
      const call = callOf(cured, context);
      return call === undefined ? { ...cured, ax: BigInt.asUintN(64, EINTR) } : rewind(cured, call);
    }
    default:
      return cured;
  }
}

function rewind(registers: Registers, call: bigint): Registers {
  return { ...registers, ax: call, orig_ax: call, ip: registers.ip - SYSCALL_LENGTH };
}

function callOf(registers: Registers, context: InterruptedContext): bigint | undefined {
  if (registers.orig_ax !== RESTART_SYSCALL) return registers.orig_ax;
  if (context.call !== undefined) return BigInt(context.call);
  if (context.tid === undefined) return undefined;
  const start = registers.ip - SYSCALL_LENGTH - BigInt(CODE_BEFORE);
  let code: Uint8Array;
  try {
    code = readRemote(context.tid, start, CODE_BEFORE);
  } catch {
    return undefined;
  }
  const call = numberBefore(code);
  return call === undefined ? undefined : BigInt(call);
}

/** How far before its `syscall` a wrapper loads the number; arguments are moved in between. */
const CODE_BEFORE = 64;
const MOV_IMMEDIATE_EAX = 0xb8;

/**
 * The number a wrapper loads into eax last before it calls, if it is a call with a restart block: after the first
 * thaw the register itself only says restart_syscall.
 */
export function numberBefore(code: Uint8Array): number | undefined {
  const view = new DataView(code.buffer, code.byteOffset, code.byteLength);
  for (let at = code.length - 5; at >= 0; at--) {
    if (code[at] !== MOV_IMMEDIATE_EAX) continue;
    const number = view.getUint32(at + 1, true);
    if (WITH_RESTART_BLOCK.has(number)) return number;
  }
  return undefined;
}

/**
 * How the kernel is to go on with a rewound call if a handler is about to run, for tasks.json: −ERESTARTNOHAND where
 * the program then gets EINTR (pause must not sleep on after the signal it waited for), −ERESTARTSYS where that
 * depends on SA_RESTART, undefined where the call is made again in any case.
 */
export function restartCode(registers: Registers): number | undefined {
  const cured = cureForThaw(registers);
  if (!inCall(cured)) return undefined;
  switch (answer(cured)) {
    case ERESTARTSYS:
      return Number(ERESTARTSYS);
    case ERESTARTNOHAND:
    case ERESTART_RESTARTBLOCK:
      return Number(ERESTARTNOHAND);
    default:
      return undefined;
  }
}

/**
 * The registers of an image for a task that is set going by ptrace: a rewound call goes back into the state in which
 * the kernel decides about it, with `code` of restartCode; without one the call is simply made.
 */
export function registersFromImage(registers: Registers, code: number | undefined): Registers {
  const isRewound = inCall(registers) && registers.ax === registers.orig_ax;
  if (!isRewound || code === undefined) return { ...registers, orig_ax: NO_SYSCALL };
  if (code !== Number(ERESTARTSYS) && code !== Number(ERESTARTNOHAND))
    throw new RangeError(`the image holds ${code} for an interrupted system call`);
  return { ...registers, ax: BigInt.asUintN(64, BigInt(code)), ip: registers.ip + SYSCALL_LENGTH };
}
