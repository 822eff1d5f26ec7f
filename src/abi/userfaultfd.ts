/** userfaultfd(2): include/uapi/linux/userfaultfd.h. ioctl.ts exports it again. */

// userfaultfd: flags, besides O_CLOEXEC and O_NONBLOCK.
export const UFFD_USER_MODE_ONLY = 1;

// API version and requests.
export const UFFD_API = 0xaa;
export const UFFDIO_API = 0xc018aa3f;
export const UFFDIO_REGISTER = 0xc020aa00;
export const UFFDIO_UNREGISTER = 0x8010aa01;
export const UFFDIO_WAKE = 0x8010aa02;
export const UFFDIO_COPY = 0xc028aa03;
export const UFFDIO_ZEROPAGE = 0xc020aa04;
export const UFFDIO_WRITEPROTECT = 0xc018aa06;
export const UFFDIO_CONTINUE = 0xc020aa07;
export const UFFDIO_MOVE = 0xc028aa05;
export const UFFDIO_POISON = 0xc020aa08;
export const USERFAULTFD_IOC_NEW = 0xaa00;

// Features.
export const UFFD_FEATURE_PAGEFAULT_FLAG_WP = 1n;
export const UFFD_FEATURE_EVENT_FORK = 2n;
export const UFFD_FEATURE_EVENT_REMAP = 4n;
export const UFFD_FEATURE_EVENT_REMOVE = 8n;
export const UFFD_FEATURE_MISSING_HUGETLBFS = 0x10n;
export const UFFD_FEATURE_MISSING_SHMEM = 0x20n;
export const UFFD_FEATURE_EVENT_UNMAP = 0x40n;
export const UFFD_FEATURE_SIGBUS = 0x80n;
export const UFFD_FEATURE_THREAD_ID = 0x100n;
export const UFFD_FEATURE_MINOR_HUGETLBFS = 0x200n;
export const UFFD_FEATURE_MINOR_SHMEM = 0x400n;
export const UFFD_FEATURE_EXACT_ADDRESS = 0x800n;
export const UFFD_FEATURE_WP_HUGETLBFS_SHMEM = 0x1000n;
export const UFFD_FEATURE_WP_UNPOPULATED = 0x2000n;
export const UFFD_FEATURE_POISON = 0x4000n;
export const UFFD_FEATURE_WP_ASYNC = 0x8000n;
export const UFFD_FEATURE_MOVE = 0x10000n;

// UFFDIO_REGISTER, COPY, ZEROPAGE, WRITEPROTECT, CONTINUE: modes.
export const UFFDIO_REGISTER_MODE_MISSING = 1n;
export const UFFDIO_REGISTER_MODE_WP = 2n;
export const UFFDIO_REGISTER_MODE_MINOR = 4n;
export const UFFDIO_COPY_MODE_DONTWAKE = 1n;
export const UFFDIO_COPY_MODE_WP = 2n;
export const UFFDIO_ZEROPAGE_MODE_DONTWAKE = 1n;
export const UFFDIO_WRITEPROTECT_MODE_WP = 1n;
export const UFFDIO_WRITEPROTECT_MODE_DONTWAKE = 2n;
export const UFFDIO_CONTINUE_MODE_DONTWAKE = 1n;
export const UFFDIO_CONTINUE_MODE_WP = 2n;

// Events, in the first byte of struct uffd_msg (32 bytes).
export const UFFD_EVENT_PAGEFAULT = 0x12;
export const UFFD_EVENT_FORK = 0x13;
export const UFFD_EVENT_REMAP = 0x14;
export const UFFD_EVENT_REMOVE = 0x15;
export const UFFD_EVENT_UNMAP = 0x16;

// Page fault flags.
export const UFFD_PAGEFAULT_FLAG_WRITE = 1n;
export const UFFD_PAGEFAULT_FLAG_WP = 2n;
export const UFFD_PAGEFAULT_FLAG_MINOR = 4n;

// Structure sizes: api (api, features, ioctls), range, register (range, mode, ioctls), copy, zeropage, writeprotect.
export const UFFD_MSG_SIZE = 32;
export const UFFDIO_API_SIZE = 24;
export const UFFDIO_RANGE_SIZE = 16;
export const UFFDIO_REGISTER_SIZE = 32;
export const UFFDIO_COPY_SIZE = 40;
export const UFFDIO_ZEROPAGE_SIZE = 32;
export const UFFDIO_WRITEPROTECT_SIZE = 24;
