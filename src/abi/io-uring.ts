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
export const SQE = { size: 64, opcode: 0, flags: 1, fd: 4, userData: 32 } as const;
export const IOSQE_CQE_SKIP_SUCCESS = 1 << 6;
export const IORING_OP_NOP = 0;
export const IORING_OP_MSG_RING = 40;

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
