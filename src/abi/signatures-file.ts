/** Signatures of the calls on files, directories and event files. */
import {
  type Argument,
  constants,
  dependent,
  dirfd,
  fd,
  flagSet,
  flags,
  hexadecimal,
  int,
  long,
  mask,
  mode,
  one,
  path,
  pid,
  pointer,
  signal,
  size,
  uint,
} from './argument.js';
import * as event from './event.js';
import * as fcntl from './fcntl.js';
import * as ioctl from './ioctl.js';
import { CLOCKS } from './signatures-process.js';

export const OPEN_FLAGS = flagSet(fcntl, /^O_(?!ACCMODE|RDONLY|WRONLY|RDWR)/, {
  mask: BigInt(fcntl.O_ACCMODE),
  values: /^O_(RDONLY|WRONLY|RDWR)$/,
});
/** O_CLOEXEC, O_NONBLOCK, O_DIRECT without an access mode: pipe2, dup3. */
const CREATION_FLAGS = flagSet(fcntl, /^O_(CLOEXEC|NONBLOCK|DIRECT)$/);
export const AT_FLAGS = flagSet(fcntl, /^AT_(?!FDCWD|REMOVEDIR|EACCESS|HANDLE)/);
const UNLINK_FLAGS = flagSet(fcntl, /^AT_REMOVEDIR$/);
const ACCESS_FLAGS = flagSet(fcntl, /^AT_(EACCESS|SYMLINK_NOFOLLOW|EMPTY_PATH)$/);
const HANDLE_FLAGS = flagSet(fcntl, /^AT_(SYMLINK_FOLLOW|EMPTY_PATH|HANDLE_\w+)$/);
const ACCESS_MODES = flagSet(fcntl, /^[RWXF]_OK$/);
const FCNTL_COMMANDS = constants(fcntl, /^F_(?!OK|OWNER|RDLCK|WRLCK|UNLCK|SEAL)/);
const SPLICE_FLAGS = flagSet(fcntl, /^SPLICE_F_/);
const RWF_FLAGS = flagSet(fcntl, /^RWF_/);
const LOCKS = flagSet(fcntl, /^LOCK_/);
const WHENCE = constants(fcntl, /^SEEK_/);
const REQUESTS = constants(
  ioctl,
  /^(TIOC(?!PKT_|M_)|TC(?![IO])|TCSBRK|FI|FS_IOC|BLK|SIOC|NS_GET|PIDFD|TUN|TFD_IOC|SECCOMP_IOCTL|PERF|EPIOC|INOTIFY_IOC|PAGEMAP_SCAN$|UFFDIO_[A-Z]+$|USERFAULTFD)/,
);

const at = [dirfd(), path()] as const;
const buffer = [fd(), pointer('buf'), size('count')] as const;
const vector = [fd(), pointer('iov'), int('iovcnt')] as const;
const owner = [int('uid'), int('gid')] as const;
const device = hexadecimal('dev');
const atFlags = flags('flags', AT_FLAGS);
const openFlags = flags('flags', OPEN_FLAGS);
const sigmask = [pointer('sigmask'), size('sigsetsize')] as const;
/** The kernel takes a position as two longs and ignores the high one on 64 bits. */
const position = [long('offset'), uint('offset_high')] as const;

const PATHS = {
  open: [path(), openFlags, mode()],
  creat: [path(), mode()],
  openat: [...at, openFlags, mode()],
  openat2: [...at, pointer('how'), size('size')],
  open_by_handle_at: [fd('mount_fd'), pointer('handle'), openFlags],
  name_to_handle_at: [...at, pointer('handle'), pointer('mount_id'), flags('flags', HANDLE_FLAGS)],
  access: [path(), flags('mode', ACCESS_MODES)],
  faccessat: [...at, flags('mode', ACCESS_MODES)],
  faccessat2: [...at, flags('mode', ACCESS_MODES), flags('flags', ACCESS_FLAGS)],
  stat: [path(), pointer('statbuf')],
  lstat: [path(), pointer('statbuf')],
  fstat: [fd(), pointer('statbuf')],
  newfstatat: [...at, pointer('statbuf'), atFlags],
  statx: [...at, atFlags, flags('mask', flagSet(fcntl, /^STATX_/)), pointer('statxbuf')],
  statfs: [path(), pointer('buf')],
  fstatfs: [fd(), pointer('buf')],
  readlink: [path(), pointer('buf'), size('bufsiz')],
  readlinkat: [...at, pointer('buf'), size('bufsiz')],
  link: [path('oldpath'), path('newpath')],
  linkat: [dirfd('olddirfd'), path('oldpath'), dirfd('newdirfd'), path('newpath'), atFlags],
  unlink: [path()],
  unlinkat: [...at, flags('flags', UNLINK_FLAGS)],
  symlink: [path('target'), path('linkpath')],
  symlinkat: [path('target'), dirfd('newdirfd'), path('linkpath')],
  mkdir: [path(), mode()],
  mkdirat: [...at, mode()],
  rmdir: [path()],
  mknod: [path(), mode(), device],
  mknodat: [...at, mode(), device],
  rename: [path('oldpath'), path('newpath')],
  renameat: [dirfd('olddirfd'), path('oldpath'), dirfd('newdirfd'), path('newpath')],
  renameat2: [
    dirfd('olddirfd'),
    path('oldpath'),
    dirfd('newdirfd'),
    path('newpath'),
    flags('flags', flagSet(fcntl, /^RENAME_/)),
  ],
  chmod: [path(), mode()],
  fchmod: [fd(), mode()],
  fchmodat: [...at, mode()],
  fchmodat2: [...at, mode(), atFlags],
  chown: [path(), ...owner],
  lchown: [path(), ...owner],
  fchown: [fd(), ...owner],
  fchownat: [...at, ...owner, atFlags],
  utimensat: [...at, pointer('times'), atFlags],
  truncate: [path(), long('length')],
  chdir: [path()],
  fchdir: [fd()],
  chroot: [path()],
  getcwd: [pointer('buf'), size('size')],
  umask: [mode('mask')],
} as const;

const xattr = [path('name'), pointer('value'), size('size')] as const;
const XATTR_FLAGS = flags('flags', flagSet(fcntl, /^XATTR_/));

const ATTRIBUTES = {
  setxattr: [path(), ...xattr, XATTR_FLAGS],
  lsetxattr: [path(), ...xattr, XATTR_FLAGS],
  fsetxattr: [fd(), ...xattr, XATTR_FLAGS],
  getxattr: [path(), ...xattr],
  lgetxattr: [path(), ...xattr],
  fgetxattr: [fd(), ...xattr],
  listxattr: [path(), pointer('list'), size('size')],
  llistxattr: [path(), pointer('list'), size('size')],
  flistxattr: [fd(), pointer('list'), size('size')],
  removexattr: [path(), path('name')],
  lremovexattr: [path(), path('name')],
  fremovexattr: [fd(), path('name')],
} as const;

const FCNTL_ARGUMENT = dependent(hexadecimal('arg'), 1, {
  [fcntl.F_DUPFD]: fd('arg'),
  [fcntl.F_DUPFD_CLOEXEC]: fd('arg'),
  [fcntl.F_SETFD]: flags('arg', flagSet(fcntl, /^FD_CLOEXEC$/)),
  [fcntl.F_SETFL]: openFlags,
  [fcntl.F_SETOWN]: pid('arg'),
  [fcntl.F_SETSIG]: signal('arg'),
  [fcntl.F_SETLEASE]: one('arg', constants(fcntl, /^F_(RDLCK|WRLCK|UNLCK)$/)),
  [fcntl.F_SETPIPE_SZ]: size('arg'),
  [fcntl.F_ADD_SEALS]: flags('arg', flagSet(fcntl, /^F_SEAL_/)),
});

const DESCRIPTORS = {
  close: [fd()],
  close_range: [uint('first'), uint('last'), flags('flags', flagSet(fcntl, /^CLOSE_RANGE_/))],
  dup: [fd('oldfd')],
  dup2: [fd('oldfd'), fd('newfd')],
  dup3: [fd('oldfd'), fd('newfd'), flags('flags', CREATION_FLAGS)],
  fcntl: [fd(), one('cmd', FCNTL_COMMANDS), FCNTL_ARGUMENT],
  ioctl: [fd(), one('request', REQUESTS), hexadecimal('arg')],
  flock: [fd(), flags('operation', LOCKS)],
  pipe: [pointer('fds')],
  pipe2: [pointer('fds'), flags('flags', CREATION_FLAGS)],
  lseek: [fd(), long('offset'), one('whence', WHENCE)],
  getdents: buffer,
  getdents64: buffer,
  fsync: [fd()],
  fdatasync: [fd()],
  syncfs: [fd()],
  sync: [],
  ftruncate: [fd(), long('length')],
  fallocate: [fd(), flags('mode', flagSet(fcntl, /^FALLOC_/)), long('offset'), long('length')],
  fadvise64: [fd(), long('offset'), size('length'), int('advice')],
  select: [int('nfds'), pointer('readfds'), pointer('writefds'), pointer('exceptfds'), pointer('timeout')],
  pselect6: [
    int('nfds'),
    pointer('readfds'),
    pointer('writefds'),
    pointer('exceptfds'),
    pointer('timeout'),
    pointer('sigmask'),
  ],
  poll: [pointer('fds'), uint('nfds'), int('timeout_ms')],
  ppoll: [pointer('fds'), uint('nfds'), pointer('timeout'), ...sigmask],
} as const;

const TRANSFERS = {
  read: buffer,
  write: buffer,
  pread64: [...buffer, long('offset')],
  pwrite64: [...buffer, long('offset')],
  readv: vector,
  writev: vector,
  preadv: [...vector, ...position],
  pwritev: [...vector, ...position],
  preadv2: [...vector, ...position, flags('flags', RWF_FLAGS)],
  pwritev2: [...vector, ...position, flags('flags', RWF_FLAGS)],
  sendfile: [fd('out_fd'), fd('in_fd'), pointer('offset'), size('count')],
  splice: [
    fd('fd_in'),
    pointer('off_in'),
    fd('fd_out'),
    pointer('off_out'),
    size('len'),
    flags('flags', SPLICE_FLAGS),
  ],
  tee: [fd('fd_in'), fd('fd_out'), size('len'), flags('flags', SPLICE_FLAGS)],
  vmsplice: [fd(), pointer('iov'), size('nr_segs'), flags('flags', SPLICE_FLAGS)],
  copy_file_range: [
    fd('fd_in'),
    pointer('off_in'),
    fd('fd_out'),
    pointer('off_out'),
    size('len'),
    uint('flags'),
  ],
  io_setup: [uint('nr_events'), pointer('ctx_idp')],
  io_destroy: [hexadecimal('ctx_id')],
  io_submit: [hexadecimal('ctx_id'), long('nr'), pointer('iocbpp')],
  io_cancel: [hexadecimal('ctx_id'), pointer('iocb'), pointer('result')],
  io_getevents: [hexadecimal('ctx_id'), long('min_nr'), long('nr'), pointer('events'), pointer('timeout')],
  io_uring_setup: [uint('entries'), pointer('params')],
  io_uring_enter: [fd(), uint('to_submit'), uint('min_complete'), hexadecimal('flags'), ...sigmask],
  io_uring_register: [fd(), uint('opcode'), pointer('arg'), uint('nr_args')],
} as const;

const EPOLL_OPERATIONS = constants(event, /^EPOLL_CTL_/);
const TIMERFD_FLAGS = flags('flags', flagSet(event, /^TFD_(CLOEXEC|NONBLOCK)/));
const epollWait = [fd('epfd'), pointer('events'), int('maxevents')] as const;

const EVENTS = {
  eventfd: [uint('initval')],
  eventfd2: [uint('initval'), flags('flags', flagSet(event, /^EFD_/))],
  epoll_create: [int('size')],
  epoll_create1: [flags('flags', flagSet(event, /^EPOLL_CLOEXEC$/))],
  epoll_ctl: [fd('epfd'), one('op', EPOLL_OPERATIONS), fd(), pointer('event')],
  epoll_wait: [...epollWait, int('timeout_ms')],
  epoll_pwait: [...epollWait, int('timeout_ms'), ...sigmask],
  epoll_pwait2: [...epollWait, pointer('timeout'), ...sigmask],
  timerfd_create: [one('clockid', CLOCKS), TIMERFD_FLAGS],
  timerfd_settime: [
    fd(),
    flags('flags', flagSet(event, /^TFD_TIMER/)),
    pointer('new_value'),
    pointer('old_value'),
  ],
  timerfd_gettime: [fd(), pointer('curr_value')],
  signalfd: [fd(), pointer('mask'), size('sizemask')],
  signalfd4: [fd(), pointer('mask'), size('sizemask'), flags('flags', flagSet(event, /^SFD_/))],
  inotify_init: [],
  inotify_init1: [flags('flags', flagSet(event, /^IN_(CLOEXEC|NONBLOCK)$/))],
  inotify_add_watch: [
    fd(),
    path(),
    flags('mask', flagSet(event, /^IN_(?!CLOEXEC|NONBLOCK|Q_|IGNORED|UNMOUNT|ISDIR|ALL)/)),
  ],
  inotify_rm_watch: [fd(), int('wd')],
  fanotify_init: [
    flags('flags', flagSet(event, /^FAN_(CLOEXEC|NONBLOCK|CLASS|UNLIMITED|ENABLE|REPORT)/)),
    flags('event_f_flags', OPEN_FLAGS),
  ],
  fanotify_mark: [
    fd(),
    flags('flags', flagSet(event, /^FAN_MARK_(?!INODE)/)),
    flags('mask', flagSet(event, /^FAN_(?!MARK|CLOEXEC|NONBLOCK|CLASS|UNLIMITED|ENABLE|REPORT)/)),
    dirfd(),
    path(),
  ],
} as const;

const PIDFDS = {
  pidfd_open: [pid(), flags('flags', flagSet({ PIDFD_NONBLOCK: 0o4000, PIDFD_THREAD: 0o200 }, /./))],
  pidfd_getfd: [fd('pidfd'), fd('targetfd'), uint('flags')],
  pidfd_send_signal: [fd('pidfd'), signal(), pointer('info'), hexadecimal('flags')],
} as const;

export const FILE_SIGNATURES = {
  ...PATHS,
  ...ATTRIBUTES,
  ...DESCRIPTORS,
  ...TRANSFERS,
  ...EVENTS,
  ...PIDFDS,
  file_getattr: [...at, pointer('attr'), size('size'), atFlags],
  file_setattr: [...at, pointer('attr'), size('size'), atFlags],
  acct: [path()],
  bpf: [int('cmd'), pointer('attr'), size('size')],
  perf_event_open: [pointer('attr'), pid(), int('cpu'), fd('group_fd'), mask('flags')],
} as const satisfies Record<string, readonly Argument[]>;
