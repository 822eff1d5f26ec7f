/** System V IPC, POSIX queues, keys: include/uapi/linux/ipc.h, sem.h, shm.h, msg.h, mqueue.h, keyctl.h. */

// Keys, flags of the get calls.
export const IPC_PRIVATE = 0;
export const IPC_CREAT = 0o1000;
export const IPC_EXCL = 0o2000;
export const IPC_NOWAIT = 0o4000;

// Control commands.
export const IPC_RMID = 0;
export const IPC_SET = 1;
export const IPC_STAT = 2;
export const IPC_INFO = 3;
export const MSG_STAT = 11;
export const MSG_INFO = 12;
export const MSG_STAT_ANY = 13;
export const SEM_STAT = 18;
export const SEM_INFO = 19;
export const SEM_STAT_ANY = 20;
export const GETPID = 11;
export const GETVAL = 12;
export const GETALL = 13;
export const GETNCNT = 14;
export const GETZCNT = 15;
export const SETVAL = 16;
export const SETALL = 17;
export const SHM_LOCK = 11;
export const SHM_UNLOCK = 12;
export const SHM_STAT = 13;
export const SHM_INFO = 14;
export const SHM_STAT_ANY = 15;

// semop, msgrcv, shmget and shmat: flags.
export const SHM_HUGETLB = 0o4000;
export const SEM_UNDO = 0o10000;
export const MSG_NOERROR = 0o10000;
export const SHM_RDONLY = 0o10000;
export const SHM_NORESERVE = 0o10000;
export const MSG_EXCEPT = 0o20000;
export const SHM_RND = 0o20000;
export const MSG_COPY = 0o40000;
export const SHM_REMAP = 0o40000;
export const SHM_EXEC = 0o100000;

// /proc/sysvipc and shmid_ds.mode: state bits.
export const SHM_DEST = 0o1000;
export const SHM_LOCKED = 0o2000;

// keyctl: operations.
export const KEYCTL_GET_KEYRING_ID = 0;
export const KEYCTL_JOIN_SESSION_KEYRING = 1;
export const KEYCTL_UPDATE = 2;
export const KEYCTL_REVOKE = 3;
export const KEYCTL_CHOWN = 4;
export const KEYCTL_SETPERM = 5;
export const KEYCTL_DESCRIBE = 6;
export const KEYCTL_CLEAR = 7;
export const KEYCTL_LINK = 8;
export const KEYCTL_UNLINK = 9;
export const KEYCTL_SEARCH = 10;
export const KEYCTL_READ = 11;
export const KEYCTL_INSTANTIATE = 12;
export const KEYCTL_NEGATE = 13;
export const KEYCTL_SET_REQKEY_KEYRING = 14;
export const KEYCTL_SET_TIMEOUT = 15;
export const KEYCTL_ASSUME_AUTHORITY = 16;
export const KEYCTL_GET_SECURITY = 17;
export const KEYCTL_SESSION_TO_PARENT = 18;
export const KEYCTL_REJECT = 19;
export const KEYCTL_INSTANTIATE_IOV = 20;
export const KEYCTL_INVALIDATE = 21;
export const KEYCTL_GET_PERSISTENT = 22;
export const KEYCTL_DH_COMPUTE = 23;
export const KEYCTL_PKEY_QUERY = 24;
export const KEYCTL_PKEY_ENCRYPT = 25;
export const KEYCTL_PKEY_DECRYPT = 26;
export const KEYCTL_PKEY_SIGN = 27;
export const KEYCTL_PKEY_VERIFY = 28;
export const KEYCTL_RESTRICT_KEYRING = 29;
export const KEYCTL_MOVE = 30;
export const KEYCTL_CAPABILITIES = 31;
export const KEYCTL_WATCH_KEY = 32;

// Special keyrings.
export const KEY_SPEC_THREAD_KEYRING = -1;
export const KEY_SPEC_PROCESS_KEYRING = -2;
export const KEY_SPEC_SESSION_KEYRING = -3;
export const KEY_SPEC_USER_KEYRING = -4;
export const KEY_SPEC_USER_SESSION_KEYRING = -5;
export const KEY_SPEC_GROUP_KEYRING = -6;
export const KEY_SPEC_REQKEY_AUTH_KEY = -7;
