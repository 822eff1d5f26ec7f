/** prctl(2): include/uapi/linux/prctl.h and securebits.h. process.ts exports it again. */

// Options.
export const PR_SET_PDEATHSIG = 1;
export const PR_GET_PDEATHSIG = 2;
export const PR_GET_DUMPABLE = 3;
export const PR_SET_DUMPABLE = 4;
export const PR_GET_UNALIGN = 5;
export const PR_SET_UNALIGN = 6;
export const PR_GET_KEEPCAPS = 7;
export const PR_SET_KEEPCAPS = 8;
export const PR_GET_FPEMU = 9;
export const PR_SET_FPEMU = 10;
export const PR_GET_FPEXC = 11;
export const PR_SET_FPEXC = 12;
export const PR_GET_TIMING = 13;
export const PR_SET_TIMING = 14;
export const PR_SET_NAME = 15;
export const PR_GET_NAME = 16;
export const PR_GET_ENDIAN = 19;
export const PR_SET_ENDIAN = 20;
export const PR_GET_SECCOMP = 21;
export const PR_SET_SECCOMP = 22;
export const PR_CAPBSET_READ = 23;
export const PR_CAPBSET_DROP = 24;
export const PR_GET_TSC = 25;
export const PR_SET_TSC = 26;
export const PR_GET_SECUREBITS = 27;
export const PR_SET_SECUREBITS = 28;
export const PR_SET_TIMERSLACK = 29;
export const PR_GET_TIMERSLACK = 30;
export const PR_TASK_PERF_EVENTS_DISABLE = 31;
export const PR_TASK_PERF_EVENTS_ENABLE = 32;
export const PR_MCE_KILL = 33;
export const PR_MCE_KILL_GET = 34;
export const PR_SET_MM = 35;
export const PR_SET_CHILD_SUBREAPER = 36;
export const PR_GET_CHILD_SUBREAPER = 37;
export const PR_SET_NO_NEW_PRIVS = 38;
export const PR_GET_NO_NEW_PRIVS = 39;
export const PR_GET_TID_ADDRESS = 40;
export const PR_SET_THP_DISABLE = 41;
export const PR_GET_THP_DISABLE = 42;
export const PR_SET_FP_MODE = 45;
export const PR_GET_FP_MODE = 46;
export const PR_CAP_AMBIENT = 47;
export const PR_GET_SPECULATION_CTRL = 52;
export const PR_SET_SPECULATION_CTRL = 53;
export const PR_SET_TAGGED_ADDR_CTRL = 55;
export const PR_GET_TAGGED_ADDR_CTRL = 56;
export const PR_SET_IO_FLUSHER = 57;
export const PR_GET_IO_FLUSHER = 58;
export const PR_SET_SYSCALL_USER_DISPATCH = 59;
export const PR_SCHED_CORE = 62;
export const PR_SET_MDWE = 65;
export const PR_GET_MDWE = 66;
export const PR_SET_MEMORY_MERGE = 67;
export const PR_GET_MEMORY_MERGE = 68;
export const PR_TIMER_CREATE_RESTORE_IDS = 77;
export const PR_FUTEX_HASH = 78;
export const PR_SET_VMA = 1398164801;
export const PR_SET_PTRACER = 1499557217;

// PR_SET_MM: fields.
export const PR_SET_MM_START_CODE = 1;
export const PR_SET_MM_END_CODE = 2;
export const PR_SET_MM_START_DATA = 3;
export const PR_SET_MM_END_DATA = 4;
export const PR_SET_MM_START_STACK = 5;
export const PR_SET_MM_START_BRK = 6;
export const PR_SET_MM_BRK = 7;
export const PR_SET_MM_ARG_START = 8;
export const PR_SET_MM_ARG_END = 9;
export const PR_SET_MM_ENV_START = 10;
export const PR_SET_MM_ENV_END = 11;
export const PR_SET_MM_AUXV = 12;
export const PR_SET_MM_EXE_FILE = 13;
export const PR_SET_MM_MAP = 14;
export const PR_SET_MM_MAP_SIZE = 15;

// PR_SET_VMA: attributes.
export const PR_SET_VMA_ANON_NAME = 0;

// PR_SET_PTRACER: anybody.
export const PR_SET_PTRACER_ANY = 0xffffffffffffffffn;

// PR_CAP_AMBIENT: operations.
export const PR_CAP_AMBIENT_IS_SET = 1;
export const PR_CAP_AMBIENT_RAISE = 2;
export const PR_CAP_AMBIENT_LOWER = 3;
export const PR_CAP_AMBIENT_CLEAR_ALL = 4;

// PR_SET_TSC, PR_SET_SYSCALL_USER_DISPATCH, PR_MCE_KILL values.
export const PR_TSC_ENABLE = 1;
export const PR_TSC_SIGSEGV = 2;
export const PR_SYS_DISPATCH_OFF = 0;
export const PR_SYS_DISPATCH_ON = 1;
export const PR_MCE_KILL_CLEAR = 0;
export const PR_MCE_KILL_SET = 1;
export const PR_MCE_KILL_LATE = 0;
export const PR_MCE_KILL_EARLY = 1;
export const PR_MCE_KILL_DEFAULT = 2;

// PR_TIMER_CREATE_RESTORE_IDS: arguments.
export const PR_TIMER_CREATE_RESTORE_IDS_OFF = 0;
export const PR_TIMER_CREATE_RESTORE_IDS_ON = 1;
export const PR_TIMER_CREATE_RESTORE_IDS_GET = 2;

// Speculation control.
export const PR_SPEC_INDIRECT_BRANCH = 1;
export const PR_SPEC_L1D_FLUSH = 2;
export const PR_SPEC_DISABLE = 4;
export const PR_SPEC_DISABLE_NOEXEC = 16;
export const PR_SPEC_STORE_BYPASS = 0;
export const PR_SPEC_NOT_AFFECTED = 0;
export const PR_SPEC_ENABLE = 2;
export const PR_SPEC_FORCE_DISABLE = 8;
export const PR_SPEC_PRCTL = 1;

// PR_SET_MDWE: flags.
export const PR_MDWE_REFUSE_EXEC_GAIN = 1;
export const PR_MDWE_NO_INHERIT = 2;

// PR_SCHED_CORE: operations.
export const PR_SCHED_CORE_SCOPE_THREAD = 0;
export const PR_SCHED_CORE_GET = 0;
export const PR_SCHED_CORE_CREATE = 1;
export const PR_SCHED_CORE_SCOPE_THREAD_GROUP = 1;
export const PR_SCHED_CORE_SCOPE_PROCESS_GROUP = 2;
export const PR_SCHED_CORE_SHARE_TO = 2;
export const PR_SCHED_CORE_SHARE_FROM = 3;

// PR_SET_SECUREBITS: bits.
export const SECBIT_NOROOT = 1;
export const SECBIT_NOROOT_LOCKED = 2;
export const SECBIT_NO_SETUID_FIXUP = 4;
export const SECBIT_NO_SETUID_FIXUP_LOCKED = 0x8;
export const SECBIT_KEEP_CAPS = 0x10;
export const SECBIT_KEEP_CAPS_LOCKED = 0x20;
export const SECBIT_NO_CAP_AMBIENT_RAISE = 0x40;
export const SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED = 0x80;

// PR_SET_DUMPABLE: include/linux/sched/coredump.h.
export const SUID_DUMP_DISABLE = 0;
export const SUID_DUMP_USER = 1;
export const SUID_DUMP_ROOT = 2;
