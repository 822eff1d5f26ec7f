/** Signals: include/uapi/asm/signal.h, asm-generic/siginfo.h. */

// Numbers; the kernel counts real-time signals from 32.
export const SIGHUP = 1;
export const SIGINT = 2;
export const SIGQUIT = 3;
export const SIGILL = 4;
export const SIGTRAP = 5;
export const SIGABRT = 6;
export const SIGBUS = 7;
export const SIGFPE = 8;
export const SIGKILL = 9;
export const SIGUSR1 = 10;
export const SIGSEGV = 11;
export const SIGUSR2 = 12;
export const SIGPIPE = 13;
export const SIGALRM = 14;
export const SIGTERM = 15;
export const SIGSTKFLT = 16;
export const SIGCHLD = 17;
export const SIGCONT = 18;
export const SIGSTOP = 19;
export const SIGTSTP = 20;
export const SIGTTIN = 21;
export const SIGTTOU = 22;
export const SIGURG = 23;
export const SIGXCPU = 24;
export const SIGXFSZ = 25;
export const SIGVTALRM = 26;
export const SIGPROF = 27;
export const SIGWINCH = 28;
export const SIGIO = 29;
export const SIGPWR = 30;
export const SIGSYS = 31;
export const SIGRTMIN = 32;
export const SIGRTMAX = 64;

// struct sigset_t: size in bytes, which the rt_sig calls want as an argument.
export const SIGSET_SIZE = 8;

// rt_sigprocmask: how.
export const SIG_BLOCK = 0;
export const SIG_UNBLOCK = 1;
export const SIG_SETMASK = 2;

// Handlers that are not functions.
export const SIG_DFL = 0;
export const SIG_IGN = 1;

// rt_sigaction: flags.
export const SA_NOCLDSTOP = 1;
export const SA_NOCLDWAIT = 2;
export const SA_SIGINFO = 4;
export const SA_UNSUPPORTED = 0x400;
export const SA_EXPOSE_TAGBITS = 0x800;
export const SA_RESTORER = 0x4000000;
export const SA_ONSTACK = 0x8000000;
export const SA_RESTART = 0x10000000;
export const SA_NODEFER = 0x40000000;
export const SA_RESETHAND = 0x80000000;

// sigaltstack: flags and the least size.
export const SS_ONSTACK = 1;
export const SS_DISABLE = 2;
export const SS_AUTODISARM = 0x80000000;
export const MINSIGSTKSZ = 2048;

// sigevent: notification.
export const SIGEV_SIGNAL = 0;
export const SIGEV_NONE = 1;
export const SIGEV_THREAD = 2;
export const SIGEV_THREAD_ID = 4;

// si_code: for every signal.
export const SI_USER = 0;
export const SI_KERNEL = 128;
export const SI_QUEUE = -1;
export const SI_TIMER = -2;
export const SI_MESGQ = -3;
export const SI_ASYNCIO = -4;
export const SI_SIGIO = -5;
export const SI_TKILL = -6;
export const SI_DETHREAD = -7;
export const SI_ASYNCNL = -60;

// si_code of SIGILL, SIGFPE, SIGSEGV, SIGBUS, SIGTRAP, SIGCHLD, SIGIO, SIGSYS.
export const ILL_ILLOPC = 1;
export const ILL_ILLOPN = 2;
export const ILL_ILLADR = 3;
export const ILL_ILLTRP = 4;
export const ILL_PRVOPC = 5;
export const ILL_PRVREG = 6;
export const ILL_COPROC = 7;
export const ILL_BADSTK = 8;
export const FPE_INTDIV = 1;
export const FPE_INTOVF = 2;
export const FPE_FLTDIV = 3;
export const FPE_FLTOVF = 4;
export const FPE_FLTUND = 5;
export const FPE_FLTRES = 6;
export const FPE_FLTINV = 7;
export const FPE_FLTSUB = 8;
export const SEGV_MAPERR = 1;
export const SEGV_ACCERR = 2;
export const SEGV_BNDERR = 3;
export const SEGV_PKUERR = 4;
export const BUS_ADRALN = 1;
export const BUS_ADRERR = 2;
export const BUS_OBJERR = 3;
export const BUS_MCEERR_AR = 4;
export const BUS_MCEERR_AO = 5;
export const TRAP_BRKPT = 1;
export const TRAP_TRACE = 2;
export const TRAP_BRANCH = 3;
export const TRAP_HWBKPT = 4;
export const TRAP_UNK = 5;
export const TRAP_PERF = 6;
export const CLD_EXITED = 1;
export const CLD_KILLED = 2;
export const CLD_DUMPED = 3;
export const CLD_TRAPPED = 4;
export const CLD_STOPPED = 5;
export const CLD_CONTINUED = 6;
export const POLL_IN = 1;
export const POLL_OUT = 2;
export const POLL_MSG = 3;
export const POLL_ERR = 4;
export const POLL_PRI = 5;
export const POLL_HUP = 6;
export const SYS_SECCOMP = 1;
export const SYS_USER_DISPATCH = 2;

// struct siginfo: size and offsets (after signo, errno, code there are four bytes of padding).
export const SIGINFO_SIZE = 128;
export const SIGINFO_OFFSET_SIGNO = 0;
export const SIGINFO_OFFSET_ERRNO = 4;
export const SIGINFO_OFFSET_CODE = 8;
export const SIGINFO_OFFSET_PID = 16;
export const SIGINFO_OFFSET_UID = 20;
export const SIGINFO_OFFSET_VALUE = 24;
export const SIGINFO_OFFSET_STATUS = 24;
export const SIGINFO_OFFSET_ADDR = 16;

// struct kernel_sigaction: size and offsets.
export const SIGACTION_SIZE = 32;
export const SIGACTION_OFFSET_HANDLER = 0;
export const SIGACTION_OFFSET_FLAGS = 8;
export const SIGACTION_OFFSET_RESTORER = 16;
export const SIGACTION_OFFSET_MASK = 24;

// struct stack_t: size and offsets.
export const STACK_T_SIZE = 24;
export const STACK_T_OFFSET_SP = 0;
export const STACK_T_OFFSET_FLAGS = 8;
export const STACK_T_OFFSET_SIZE = 16;

const NAMES: readonly string[] = (
  '0 HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP ' +
  'TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS'
).split(' ');

/** Name of a signal: SIGTERM, SIGRTMIN+3; a number that is no signal prints as itself. */
export function signalName(signal: number): string {
  if (signal > 0 && signal < SIGRTMIN) return `SIG${NAMES[signal] ?? signal}`;
  if (signal === SIGRTMIN) return 'SIGRTMIN';
  if (signal > SIGRTMIN && signal <= SIGRTMAX) return `SIGRTMIN+${signal - SIGRTMIN}`;
  return String(signal);
}

/** Number of a signal's name, with or without SIG, or undefined. */
export function signalNumber(name: string): number | undefined {
  const bare = name.toUpperCase().replace(/^SIG/, '');
  const index = NAMES.indexOf(bare);
  if (index > 0) return index;
  const alias: Readonly<Record<string, number>> = {
    IOT: SIGABRT,
    POLL: SIGIO,
    CLD: SIGCHLD,
    RTMAX: SIGRTMAX,
  };
  const realTime = /^RT(?:MIN)?(?:\+(\d+))?$/.exec(bare);
  if (realTime === null) return alias[bare];
  const number = SIGRTMIN + Number(realTime[1] ?? 0);
  return number <= SIGRTMAX ? number : undefined;
}

/** Bit of a signal in a mask: signal 1 is bit 0. */
export const signalBit = (signal: number): bigint => 1n << BigInt(signal - 1);

/** The signals of a mask, ascending. */
export function signalsOf(mask: bigint): number[] {
  const signals: number[] = [];
  if (mask === 0n) return signals;
  for (let signal = 1; signal <= SIGRTMAX; signal++) {
    if ((mask & signalBit(signal)) !== 0n) signals.push(signal);
  }
  return signals;
}
