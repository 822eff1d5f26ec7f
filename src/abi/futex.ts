/** futex(2): include/uapi/linux/futex.h. process.ts exports it again. */

// Operations, before the two flags below.
export const FUTEX_WAIT = 0;
export const FUTEX_WAKE = 1;
export const FUTEX_FD = 2;
export const FUTEX_REQUEUE = 3;
export const FUTEX_CMP_REQUEUE = 4;
export const FUTEX_WAKE_OP = 5;
export const FUTEX_LOCK_PI = 6;
export const FUTEX_UNLOCK_PI = 7;
export const FUTEX_TRYLOCK_PI = 8;
export const FUTEX_WAIT_BITSET = 9;
export const FUTEX_WAKE_BITSET = 10;
export const FUTEX_WAIT_REQUEUE_PI = 11;
export const FUTEX_CMP_REQUEUE_PI = 12;
export const FUTEX_LOCK_PI2 = 13;

// Or-ed into the operation.
export const FUTEX_PRIVATE_FLAG = 0x80;
export const FUTEX_CLOCK_REALTIME = 0x100;
export const FUTEX_CMD_MASK = 0xfffffe7f;

// Bits of a robust or PI futex word.
export const FUTEX_WAITERS = 0x80000000;
export const FUTEX_OWNER_DIED = 0x40000000;
export const FUTEX_TID_MASK = 0x3fffffff;

// FUTEX_WAIT_BITSET: any waker.
export const FUTEX_BITSET_MATCH_ANY = 0xffffffff;

// set_robust_list: size of struct robust_list_head.
export const ROBUST_LIST_HEAD_SIZE = 24;
