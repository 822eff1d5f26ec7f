/** io_uring(7): include/uapi/linux/io_uring.h. */

// io_uring_setup(2).
export const IORING_SETUP_IOPOLL = 1 << 0;
export const IORING_SETUP_SQPOLL = 1 << 1;
export const IORING_SETUP_SQ_AFF = 1 << 2;
export const IORING_SETUP_CQSIZE = 1 << 3;
export const IORING_SETUP_CLAMP = 1 << 4;
export const IORING_SETUP_ATTACH_WQ = 1 << 5;
export const IORING_SETUP_R_DISABLED = 1 << 6;
export const IORING_SETUP_SUBMIT_ALL = 1 << 7;
export const IORING_SETUP_COOP_TASKRUN = 1 << 8;
export const IORING_SETUP_TASKRUN_FLAG = 1 << 9;
export const IORING_SETUP_SQE128 = 1 << 10;
export const IORING_SETUP_CQE32 = 1 << 11;
export const IORING_SETUP_SINGLE_ISSUER = 1 << 12;
export const IORING_SETUP_DEFER_TASKRUN = 1 << 13;
export const IORING_SETUP_NO_MMAP = 1 << 14;
export const IORING_SETUP_REGISTERED_FD_ONLY = 1 << 15;
export const IORING_SETUP_NO_SQARRAY = 1 << 16;
export const IORING_SETUP_HYBRID_IOPOLL = 1 << 17;
export const IORING_SETUP_CQE_MIXED = 1 << 18;

/** struct io_uring_params: the offsets of the ring's words follow what is asked for. */
export const PARAMS = { size: 120, cqEntries: 4, flags: 8, sqOffsets: 40, cqOffsets: 80 } as const;
/** Words of struct io_sqring_offsets and struct io_cqring_offsets that are in use. */
export const OFFSETS_COUNT = 7;

// mmap(2).
export const IORING_OFF_SQ_RING = 0;
export const IORING_OFF_SQES = 0x1000_0000;

// Limits of entries (io_uring/io_uring.h).
export const IORING_MAX_ENTRIES = 32768;
export const IORING_MAX_CQ_ENTRIES = 2 * IORING_MAX_ENTRIES;

/** struct io_uring_sqe. */
export const SQE = {
  size: 64,
  opcode: 0,
  flags: 1,
  ioprio: 2,
  fd: 4,
  /** Also addr2. */
  off: 8,
  addr: 16,
  len: 24,
  /** rw_flags, msg_flags, accept_flags, timeout_flags, poll32_events. */
  opFlags: 28,
  userData: 32,
  bufIndex: 40,
  personality: 42,
  /** Also splice_fd_in, optlen. */
  fileIndex: 44,
  addr3: 48,
} as const;
export const IOSQE_FIXED_FILE = 1 << 0;
export const IOSQE_IO_LINK = 1 << 2;
export const IOSQE_IO_HARDLINK = 1 << 3;
export const IOSQE_ASYNC = 1 << 4;
export const IOSQE_CQE_SKIP_SUCCESS = 1 << 6;
export const IORING_OP_NOP = 0;
export const IORING_OP_READV = 1;
export const IORING_OP_WRITEV = 2;
export const IORING_OP_READ_FIXED = 4;
export const IORING_OP_WRITE_FIXED = 5;
export const IORING_OP_POLL_ADD = 6;
export const IORING_OP_SENDMSG = 9;
export const IORING_OP_RECVMSG = 10;
export const IORING_OP_TIMEOUT = 11;
export const IORING_OP_ACCEPT = 13;
export const IORING_OP_LINK_TIMEOUT = 15;
export const IORING_OP_READ = 22;
export const IORING_OP_WRITE = 23;
export const IORING_OP_SEND = 26;
export const IORING_OP_RECV = 27;
export const IORING_OP_MSG_RING = 40;
export const IORING_OP_EPOLL_WAIT = 59;

export const IORING_POLL_ADD_MULTI = 1 << 0;
export const IORING_POLL_ADD_LEVEL = 1 << 3;
export const IORING_RECVSEND_POLL_FIRST = 1 << 0;
export const IORING_TIMEOUT_ABS = 1 << 0;
export const IORING_TIMEOUT_BOOTTIME = 1 << 2;
export const IORING_TIMEOUT_REALTIME = 1 << 3;
export const IORING_TIMEOUT_MULTISHOT = 1 << 6;

/** Of IORING_SETUP_TASKRUN_FLAG, among the ring's words: the task has work to do. */
export const IORING_SQ_TASKRUN = 1 << 2;

// io_uring_enter(2).
export const IORING_ENTER_GETEVENTS = 1 << 0;

// io_uring_register(2).
export const IORING_REGISTER_BUFFERS = 0;
export const IORING_REGISTER_FILES = 2;
export const IORING_REGISTER_EVENTFD = 4;
export const IORING_REGISTER_EVENTFD_ASYNC = 7;
export const IORING_REGISTER_ENABLE_RINGS = 12;
export const IORING_REGISTER_IOWQ_MAX_WORKERS = 19;
export const IORING_REGISTER_RING_FDS = 20;
export const IORING_REGISTER_FILE_ALLOC_RANGE = 25;
export const IORING_REGISTER_CLOCK = 29;
