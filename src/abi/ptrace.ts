/** ptrace(2): include/uapi/linux/ptrace.h, asm/ptrace-abi.h, linux/elf.h (register sets). */

// Requests.
export const PTRACE_TRACEME = 0;
export const PTRACE_PEEKTEXT = 1;
export const PTRACE_PEEKDATA = 2;
export const PTRACE_PEEKUSR = 3;
export const PTRACE_POKETEXT = 4;
export const PTRACE_POKEDATA = 5;
export const PTRACE_POKEUSR = 6;
export const PTRACE_CONT = 7;
export const PTRACE_KILL = 0x8;
export const PTRACE_SINGLESTEP = 0x9;
export const PTRACE_GETREGS = 0xc;
export const PTRACE_SETREGS = 0xd;
export const PTRACE_GETFPREGS = 0xe;
export const PTRACE_SETFPREGS = 0xf;
export const PTRACE_ATTACH = 0x10;
export const PTRACE_DETACH = 0x11;
export const PTRACE_SYSCALL = 0x18;
export const PTRACE_GET_THREAD_AREA = 0x19;
export const PTRACE_SET_THREAD_AREA = 0x1a;
export const PTRACE_ARCH_PRCTL = 0x1e;
export const PTRACE_SYSEMU = 0x1f;
export const PTRACE_SYSEMU_SINGLESTEP = 0x20;
export const PTRACE_SINGLEBLOCK = 0x21;
export const PTRACE_SETOPTIONS = 0x4200;
export const PTRACE_GETEVENTMSG = 0x4201;
export const PTRACE_GETSIGINFO = 0x4202;
export const PTRACE_SETSIGINFO = 0x4203;
export const PTRACE_GETREGSET = 0x4204;
export const PTRACE_SETREGSET = 0x4205;
export const PTRACE_SEIZE = 0x4206;
export const PTRACE_INTERRUPT = 0x4207;
export const PTRACE_LISTEN = 0x4208;
export const PTRACE_PEEKSIGINFO = 0x4209;
export const PTRACE_GETSIGMASK = 0x420a;
export const PTRACE_SETSIGMASK = 0x420b;
export const PTRACE_SECCOMP_GET_FILTER = 0x420c;
export const PTRACE_SECCOMP_GET_METADATA = 0x420d;
export const PTRACE_GET_SYSCALL_INFO = 0x420e;
export const PTRACE_GET_RSEQ_CONFIGURATION = 0x420f;
export const PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG = 0x4210;
export const PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG = 0x4211;
export const PTRACE_SET_SYSCALL_INFO = 0x4212;

// PTRACE_SEIZE, PTRACE_SETOPTIONS: options.
export const PTRACE_O_TRACESYSGOOD = 1;
export const PTRACE_O_TRACEFORK = 2;
export const PTRACE_O_TRACEVFORK = 4;
export const PTRACE_O_TRACECLONE = 0x8;
export const PTRACE_O_TRACEEXEC = 0x10;
export const PTRACE_O_TRACEVFORKDONE = 0x20;
export const PTRACE_O_TRACEEXIT = 0x40;
export const PTRACE_O_TRACESECCOMP = 0x80;
export const PTRACE_O_EXITKILL = 0x100000;
export const PTRACE_O_SUSPEND_SECCOMP = 0x200000;
export const PTRACE_O_MASK = 0x3000ff;

// Events, in the third byte of a wait status.
export const PTRACE_EVENT_FORK = 1;
export const PTRACE_EVENT_VFORK = 2;
export const PTRACE_EVENT_CLONE = 3;
export const PTRACE_EVENT_EXEC = 4;
export const PTRACE_EVENT_VFORK_DONE = 5;
export const PTRACE_EVENT_EXIT = 6;
export const PTRACE_EVENT_SECCOMP = 7;
export const PTRACE_EVENT_STOP = 128;

// PTRACE_GETEVENTMSG at a system call stop.
export const PTRACE_EVENTMSG_SYSCALL_ENTRY = 1;
export const PTRACE_EVENTMSG_SYSCALL_EXIT = 2;

// PTRACE_PEEKSIGINFO: flags.
export const PTRACE_PEEKSIGINFO_SHARED = 1;

// PTRACE_GET_SYSCALL_INFO: op.
export const PTRACE_SYSCALL_INFO_NONE = 0;
export const PTRACE_SYSCALL_INFO_ENTRY = 1;
export const PTRACE_SYSCALL_INFO_EXIT = 2;
export const PTRACE_SYSCALL_INFO_SECCOMP = 3;

// PTRACE_GETREGSET, SETREGSET: register sets of x86.
export const NT_PRSTATUS = 1;
export const NT_PRFPREG = 2;
export const NT_PRPSINFO = 3;
export const NT_AUXV = 6;
export const NT_386_TLS = 0x200;
export const NT_386_IOPERM = 0x201;
export const NT_X86_XSTATE = 0x202;
export const NT_X86_SHSTK = 0x204;

/** The event of a wait status; 0 where the stop is none. */
export const ptraceEventOf = (waitStatus: number): number => waitStatus >>> 16;

/** struct ptrace_peeksiginfo_args: u64 offset, u32 flags, s32 count. */
export const PEEKSIGINFO_ARGS = { size: 16, off: 0, flags: 8, nr: 12 } as const;

/** struct seccomp_metadata: u64 filter_off (in), u64 flags (out). */
export const SECCOMP_METADATA = { size: 16, filter_off: 0, flags: 8 } as const;

/** One struct sock_filter: u16 code, u8 jt, u8 jf, u32 k. */
export const SOCK_FILTER = { size: 8, code: 0, jt: 2, jf: 3, k: 4 } as const;

/** struct ptrace_rseq_configuration: u64 rseq_abi_pointer, u32 rseq_abi_size, signature, flags, pad. */
export const PTRACE_RSEQ_CONFIGURATION = {
  size: 24,
  rseq_abi_pointer: 0,
  rseq_abi_size: 8,
  signature: 12,
  flags: 16,
} as const;

/** struct ptrace_sud_config (syscall user dispatch): four u64. */
export const PTRACE_SUD_CONFIG = { size: 32, mode: 0, selector: 8, offset: 16, len: 24 } as const;

/** struct ptrace_syscall_info: the fixed head, then nr and args at entry, or rval and is_error at exit. */
export const PTRACE_SYSCALL_INFO = {
  size: 88,
  op: 0,
  arch: 4,
  instruction_pointer: 8,
  stack_pointer: 16,
  nr: 24,
  args: 32,
  rval: 24,
  is_error: 32,
} as const;
