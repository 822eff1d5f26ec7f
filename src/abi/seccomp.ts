/** seccomp(2) and classic BPF: include/uapi/linux/seccomp.h, bpf_common.h. process.ts exports it again. */

// Operations.
export const SECCOMP_SET_MODE_STRICT = 0;
export const SECCOMP_SET_MODE_FILTER = 1;
export const SECCOMP_GET_ACTION_AVAIL = 2;
export const SECCOMP_GET_NOTIF_SIZES = 3;

// Modes in /proc/PID/status.
export const SECCOMP_MODE_DISABLED = 0;
export const SECCOMP_MODE_STRICT = 1;
export const SECCOMP_MODE_FILTER = 2;

// SECCOMP_SET_MODE_FILTER: flags.
export const SECCOMP_FILTER_FLAG_TSYNC = 1;
export const SECCOMP_FILTER_FLAG_LOG = 2;
export const SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4;
export const SECCOMP_FILTER_FLAG_NEW_LISTENER = 0x8;
export const SECCOMP_FILTER_FLAG_TSYNC_ESRCH = 0x10;
export const SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 0x20;

// Return values of a filter.
export const SECCOMP_RET_KILL = 0;
export const SECCOMP_RET_KILL_THREAD = 0;
export const SECCOMP_RET_DATA = 0xffff;
export const SECCOMP_RET_TRAP = 0x30000;
export const SECCOMP_RET_ERRNO = 0x50000;
export const SECCOMP_RET_USER_NOTIF = 0x7fc00000;
export const SECCOMP_RET_TRACE = 0x7ff00000;
export const SECCOMP_RET_LOG = 0x7ffc0000;
export const SECCOMP_RET_ALLOW = 0x7fff0000;
export const SECCOMP_RET_ACTION = 0x7fff0000;
export const SECCOMP_RET_KILL_PROCESS = 0x80000000;
export const SECCOMP_RET_ACTION_FULL = 0xffff0000;

// Length limit of one program, in instructions.
export const BPF_MAXINSNS = 4096;

// Instructions that filters are made of.
export const BPF_LD = 0;
export const BPF_ST = 2;
export const BPF_ALU = 4;
export const BPF_JMP = 5;
export const BPF_RET = 6;
export const BPF_W = 0;
export const BPF_ABS = 0x20;
export const BPF_K = 0;
export const BPF_JEQ = 0x10;
export const BPF_JGE = 0x30;
export const BPF_JGT = 0x20;
export const BPF_JSET = 0x40;
export const BPF_AND = 0x50;
