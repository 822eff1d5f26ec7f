/** The first word of every image but the inventory and raw files. */
export const IMG_COMMON_MAGIC = 0x54564319;
/** The first word of files about a run instead of a process: statistics, the irmap cache. */
export const IMG_SERVICE_MAGIC = 0x55105940;

/** The version this code writes in the inventory; readers accept 1 (no group word) as well. */
export const IMAGES_VERSION = 2;

/** Type words, by CRIU's names. They are the second word of a file (the inventory's only one). */
export const MAGIC = {
  APPARMOR: 0x59423047,
  BINFMT_MISC: 0x67343323,
  BPFMAP_DATA: 0x64324033,
  CGROUP: 0x59383330,
  CORE: 0x55053847,
  CPUINFO: 0x61404013,
  FDINFO: 0x56213732,
  FIFO_DATA: 0x59333054,
  FILE_LOCKS: 0x54323616,
  FILES: 0x56303138,
  FS: 0x51403912,
  GHOST_FILE: 0x52583605,
  IDS: 0x54432030,
  INVENTORY: 0x58313116,
  IPCNS_MSG: 0x55453737,
  IPCNS_SEM: 0x59573019,
  IPCNS_SHM: 0x46283044,
  IPC_VAR: 0x53115007,
  MEMFD_INODE: 0x48453499,
  MM: 0x57492820,
  MNTS: 0x55563928,
  NETDEV: 0x57373951,
  NETNS: 0x55933752,
  PAGEMAP: 0x56084025,
  PIDNS: 0x61157326,
  PIPES_DATA: 0x56453709,
  PSTREE: 0x50273030,
  REMAP_FPATH: 0x59133954,
  SECCOMP: 0x64413049,
  SK_QUEUES: 0x56264026,
  STATS: 0x57093306,
  TCP_STREAM: 0x51465506,
  TIMENS: 0x43114433,
  TTY_DATA: 0x59413026,
  TTY_INFO: 0x59453036,
  USERNS: 0x55474906,
  UTSNS: 0x54473203,
} as const;
