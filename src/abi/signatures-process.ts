/** Signatures of the calls on processes, threads, signals, time, scheduling and credentials. */
import {
  type Argument,
  address,
  constants,
  type FlagSet,
  fd,
  flagSet,
  flags,
  hexadecimal,
  int,
  mask,
  one,
  path,
  pid,
  pointer,
  signal,
  size,
  uint,
} from './argument.js';
import * as process from './process.js';
import * as ptrace from './ptrace.js';
import * as signals from './signal.js';

export const CLOCKS = constants(process, /^CLOCK_/);
/** The low byte of clone's flags is the signal of the child's end. */
export const CLONE_FLAGS: FlagSet = {
  ...flagSet(process, /^CLONE_(?!ARGS|NEWTIME)/),
  fields: [{ mask: 0xffn, names: constants(signals, /^SIG[A-Z0-9]+$/) }],
};
const NAMESPACE_FLAGS = flagSet(process, /^CLONE_(NEW\w+|FS|FILES|SYSVSEM|VM|THREAD|SIGHAND)$/);
const RESOURCES = constants(process, /^RLIMIT_/);
const POLICIES = constants(process, /^SCHED_(NORMAL|FIFO|RR|BATCH|IDLE|DEADLINE|EXT)$/);
const POLICY_FLAGS = flagSet(process, /^SCHED_RESET_ON_FORK$/);
const PRIO_WHICH = constants(process, /^PRIO_/);
const IOPRIO_WHICH = constants(process, /^IOPRIO_WHO_/);
const TIMERS = constants(process, /^ITIMER_/);
const TIMER_FLAGS = flagSet(process, /^TIMER_ABSTIME$/);
const WAIT_OPTIONS = flagSet(process, /^(W[A-Z]+|__W[A-Z]+)$/);
const PRCTL_OPTIONS = constants(
  process,
  /^PR_((GET|SET)_(?!MM_|VMA_|PTRACER_ANY)\w+|CAPBSET_\w+|CAP_AMBIENT|TASK_\w+|MCE_KILL|MCE_KILL_GET|SCHED_CORE|TIMER_CREATE_RESTORE_IDS|FUTEX_HASH)$/,
);
const FUTEX_OPERATIONS = constants(
  process,
  /^FUTEX_(FD|(?!PRIVATE|CLOCK|CMD_MASK|WAITERS|OWNER|TID|BITSET)\w+)$/,
);
const FUTEX_FLAGS = flagSet(process, /^FUTEX_(PRIVATE_FLAG|CLOCK_REALTIME)$/);
const PERSONALITIES = flagSet(
  process,
  /^(PER_LINUX32|UNAME26|ADDR_\w+|FDPIC_\w+|MMAP_PAGE_ZERO|READ_IMPLIES_EXEC|SHORT_INODE|WHOLE_SECONDS|STICKY_TIMEOUTS)$/,
);
const sigsetsize = size('sigsetsize');
const SIGMASK_HOW = constants(signals, /^SIG_(BLOCK|UNBLOCK|SETMASK)$/);

const TASKS = {
  clone: [
    flags('flags', CLONE_FLAGS),
    address('stack'),
    pointer('parent_tid'),
    pointer('child_tid'),
    address('tls'),
  ],
  clone3: [pointer('cl_args'), size()],
  fork: [],
  vfork: [],
  execve: [path(), pointer('argv'), pointer('envp')],
  exit: [int('status')],
  exit_group: [int('status')],
  wait4: [pid(), pointer('wstatus'), flags('options', WAIT_OPTIONS), pointer('rusage')],
  waitid: [
    one('idtype', constants(process, /^P_/)),
    int('id'),
    pointer('info'),
    flags('options', WAIT_OPTIONS),
    pointer('rusage'),
  ],
  getpid: [],
  gettid: [],
  getppid: [],
  getpgrp: [],
  getpgid: [pid()],
  setpgid: [pid(), pid('pgid')],
  getsid: [pid()],
  setsid: [],
  set_tid_address: [pointer('tidptr')],
  set_robust_list: [pointer('head'), size('len')],
  get_robust_list: [pid(), pointer('head_ptr'), pointer('len_ptr')],
  rseq: [
    pointer('rseq'),
    size('rseq_len'),
    flags('flags', flagSet(process, /^RSEQ_FLAG_/)),
    hexadecimal('sig'),
  ],
  unshare: [flags('flags', NAMESPACE_FLAGS)],
  setns: [fd(), flags('nstype', NAMESPACE_FLAGS)],
  prctl: [
    one('option', PRCTL_OPTIONS),
    hexadecimal('arg2'),
    hexadecimal('arg3'),
    hexadecimal('arg4'),
    hexadecimal('arg5'),
  ],
  arch_prctl: [one('code', constants(process, /^ARCH_/)), hexadecimal('addr')],
  personality: [flags('persona', PERSONALITIES)],
  ptrace: [
    one('request', constants(ptrace, /^PTRACE_(?!O_|EVENT|SYSCALL_INFO)/)),
    pid(),
    hexadecimal('addr'),
    hexadecimal('data'),
  ],
  kcmp: [
    pid('pid1'),
    pid('pid2'),
    one('type', constants(process, /^KCMP_/)),
    hexadecimal('idx1'),
    hexadecimal('idx2'),
  ],
  process_vm_readv: remoteVectors(),
  process_vm_writev: remoteVectors(),
  membarrier: [one('cmd', constants(process, /^MEMBARRIER_/)), uint('flags'), int('cpu_id')],
} as const;

function remoteVectors(): readonly Argument[] {
  return [
    pid(),
    pointer('local_iov'),
    size('liovcnt'),
    pointer('remote_iov'),
    size('riovcnt'),
    uint('flags'),
  ];
}

const SIGNALS = {
  kill: [pid(), signal()],
  tkill: [pid('tid'), signal()],
  tgkill: [pid('tgid'), pid('tid'), signal()],
  rt_sigqueueinfo: [pid('tgid'), signal(), pointer('info')],
  rt_tgsigqueueinfo: [pid('tgid'), pid('tid'), signal(), pointer('info')],
  rt_sigaction: [signal('signum'), pointer('act'), pointer('oldact'), sigsetsize],
  rt_sigprocmask: [one('how', SIGMASK_HOW), pointer('set'), pointer('oldset'), sigsetsize],
  rt_sigpending: [pointer('set'), sigsetsize],
  rt_sigsuspend: [pointer('mask'), sigsetsize],
  rt_sigtimedwait: [pointer('set'), pointer('info'), pointer('timeout'), sigsetsize],
  rt_sigreturn: [],
  restart_syscall: [],
  sigaltstack: [pointer('ss'), pointer('old_ss')],
  pause: [],
} as const;

const TIME = {
  getitimer: [one('which', TIMERS), pointer('curr_value')],
  setitimer: [one('which', TIMERS), pointer('new_value'), pointer('old_value')],
  alarm: [uint('seconds')],
  timer_create: [one('clockid', CLOCKS), pointer('sevp'), pointer('timerid')],
  timer_settime: [int('timerid'), flags('flags', TIMER_FLAGS), pointer('new_value'), pointer('old_value')],
  timer_gettime: [int('timerid'), pointer('curr_value')],
  timer_getoverrun: [int('timerid')],
  timer_delete: [int('timerid')],
  clock_gettime: [one('clockid', CLOCKS), pointer('tp')],
  clock_settime: [one('clockid', CLOCKS), pointer('tp')],
  clock_getres: [one('clockid', CLOCKS), pointer('res')],
  clock_nanosleep: [
    one('clockid', CLOCKS),
    flags('flags', TIMER_FLAGS),
    pointer('request'),
    pointer('remain'),
  ],
  nanosleep: [pointer('request'), pointer('remain')],
  gettimeofday: [pointer('tv'), pointer('tz')],
  times: [pointer('buf')],
  getrusage: [one('who', constants(process, /^RUSAGE_/)), pointer('usage')],
} as const;

const SCHEDULING = {
  sched_yield: [],
  sched_setscheduler: [pid(), one('policy', POLICIES, POLICY_FLAGS), pointer('param')],
  sched_getscheduler: [pid()],
  sched_setparam: [pid(), pointer('param')],
  sched_getparam: [pid(), pointer('param')],
  sched_setattr: [pid(), pointer('attr'), uint('flags')],
  sched_getattr: [pid(), pointer('attr'), size(), uint('flags')],
  sched_setaffinity: [pid(), size('cpusetsize'), pointer('mask')],
  sched_getaffinity: [pid(), size('cpusetsize'), pointer('mask')],
  sched_get_priority_max: [one('policy', POLICIES)],
  sched_get_priority_min: [one('policy', POLICIES)],
  sched_rr_get_interval: [pid(), pointer('tp')],
  setpriority: [one('which', PRIO_WHICH), int('who'), int('prio')],
  getpriority: [one('which', PRIO_WHICH), int('who')],
  ioprio_set: [one('which', IOPRIO_WHICH), int('who'), hexadecimal('ioprio')],
  ioprio_get: [one('which', IOPRIO_WHICH), int('who')],
  getrlimit: [one('resource', RESOURCES), pointer('rlim')],
  setrlimit: [one('resource', RESOURCES), pointer('rlim')],
  prlimit64: [pid(), one('resource', RESOURCES), pointer('new_limit'), pointer('old_limit')],
  getcpu: [pointer('cpu'), pointer('node'), pointer('tcache')],
} as const;

const CREDENTIALS = {
  getuid: [],
  geteuid: [],
  getgid: [],
  getegid: [],
  setuid: [int('uid')],
  setgid: [int('gid')],
  setreuid: [int('ruid'), int('euid')],
  setregid: [int('rgid'), int('egid')],
  setresuid: [int('ruid'), int('euid'), int('suid')],
  setresgid: [int('rgid'), int('egid'), int('sgid')],
  getresuid: [pointer('ruid'), pointer('euid'), pointer('suid')],
  getresgid: [pointer('rgid'), pointer('egid'), pointer('sgid')],
  setfsuid: [int('fsuid')],
  setfsgid: [int('fsgid')],
  setgroups: [int('size'), pointer('list')],
  getgroups: [int('size'), pointer('list')],
  capget: [pointer('hdrp'), pointer('datap')],
  capset: [pointer('hdrp'), pointer('datap')],
  seccomp: [
    one('operation', constants(process, /^SECCOMP_(SET_MODE|GET)_/)),
    flags('flags', flagSet(process, /^SECCOMP_FILTER_FLAG_/)),
    pointer('args'),
  ],
  sethostname: [path('name'), size('len')],
  setdomainname: [path('name'), size('len')],
  uname: [pointer('buf')],
  sysinfo: [pointer('info')],
  getrandom: [pointer('buf'), size('buflen'), flags('flags', flagSet(process, /^GRND_/))],
} as const;

const FUTEXES = {
  futex: [
    pointer('uaddr'),
    one('op', FUTEX_OPERATIONS, FUTEX_FLAGS),
    uint('val'),
    hexadecimal('timeout'),
    pointer('uaddr2'),
    hexadecimal('val3'),
  ],
  futex_waitv: [
    pointer('waiters'),
    size('nr_futexes'),
    uint('flags'),
    pointer('timeout'),
    one('clockid', CLOCKS),
  ],
  futex_wake: [pointer('uaddr'), mask('mask'), int('nr'), hexadecimal('flags')],
  futex_wait: [
    pointer('uaddr'),
    uint('val'),
    mask('mask'),
    hexadecimal('flags'),
    pointer('timeout'),
    one('clockid', CLOCKS),
  ],
  futex_requeue: [pointer('waiters'), uint('flags'), int('nr_wake'), int('nr_requeue')],
} as const;

export const PROCESS_SIGNATURES = {
  ...TASKS,
  ...SIGNALS,
  ...TIME,
  ...SCHEDULING,
  ...CREDENTIALS,
  ...FUTEXES,
} as const satisfies Record<string, readonly Argument[]>;
