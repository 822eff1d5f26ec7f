/** Signatures of the calls on memory. */
import {
  address,
  constants,
  fd,
  flagSet,
  flags,
  hexadecimal,
  int,
  one,
  path,
  pid,
  pointer,
  size,
  uint,
} from './argument.js';
import * as fcntl from './fcntl.js';
import * as mman from './mman.js';
import * as userfaultfd from './userfaultfd.js';

export const PROT_FLAGS = flagSet(mman, /^PROT_/);
export const MMAP_FLAGS = flagSet(mman, /^MAP_(?!TYPE|DROPPABLE|HUGE_|SHARED$|PRIVATE$|SHARED_V)/, {
  mask: BigInt(mman.MAP_TYPE),
  values: /^MAP_(SHARED|PRIVATE|SHARED_VALIDATE|DROPPABLE)$/,
});
const MADVICE = constants(mman, /^MADV_/);
const MPOL_MODES = constants(mman, /^MPOL_(?!F_|MF_)/);
const MPOL_MODE_FLAGS = flagSet(mman, /^MPOL_F_(STATIC|RELATIVE|NUMA)/);
const MPOL_MF = flagSet(mman, /^MPOL_MF_/);
const UFFD_FLAGS = flagSet({ ...userfaultfd, ...fcntl }, /^(UFFD_USER_MODE_ONLY|O_CLOEXEC|O_NONBLOCK)$/);

const range = [address(), size('length')] as const;

export const MEMORY_SIGNATURES = {
  mmap: [...range, flags('prot', PROT_FLAGS), flags('flags', MMAP_FLAGS), fd(), hexadecimal('offset')],
  mprotect: [...range, flags('prot', PROT_FLAGS)],
  pkey_mprotect: [...range, flags('prot', PROT_FLAGS), int('pkey')],
  pkey_alloc: [uint('flags'), flags('rights', flagSet(mman, /^PKEY_/))],
  pkey_free: [int('pkey')],
  munmap: range,
  mremap: [
    address('old_address'),
    size('old_size'),
    size('new_size'),
    flags('flags', flagSet(mman, /^MREMAP_/)),
    address('new_address'),
  ],
  brk: [address()],
  madvise: [...range, one('advice', MADVICE)],
  process_madvise: [fd('pidfd'), pointer('iovec'), size('vlen'), one('advice', MADVICE), uint('flags')],
  process_mrelease: [fd('pidfd'), uint('flags')],
  mlock: range,
  mlock2: [...range, flags('flags', flagSet(mman, /^MLOCK_/))],
  munlock: range,
  mlockall: [flags('flags', flagSet(mman, /^MCL_/))],
  munlockall: [],
  msync: [...range, flags('flags', flagSet(mman, /^MS_/))],
  mincore: [...range, pointer('vec')],
  mseal: [...range, uint('flags')],
  map_shadow_stack: [...range, hexadecimal('flags')],
  remap_file_pages: [
    address(),
    size('size'),
    flags('prot', PROT_FLAGS),
    size('pgoff'),
    flags('flags', MMAP_FLAGS),
  ],
  mbind: [
    ...range,
    one('mode', MPOL_MODES, MPOL_MODE_FLAGS),
    pointer('nodemask'),
    uint('maxnode'),
    flags('flags', MPOL_MF),
  ],
  set_mempolicy: [one('mode', MPOL_MODES, MPOL_MODE_FLAGS), pointer('nodemask'), uint('maxnode')],
  set_mempolicy_home_node: [...range, uint('home_node'), uint('flags')],
  get_mempolicy: [
    pointer('mode'),
    pointer('nodemask'),
    uint('maxnode'),
    address(),
    flags('flags', flagSet(mman, /^MPOL_F_(NODE|ADDR|MEMS_ALLOWED)$/)),
  ],
  migrate_pages: [pid(), uint('maxnode'), pointer('old_nodes'), pointer('new_nodes')],
  move_pages: [
    pid(),
    uint('count'),
    pointer('pages'),
    pointer('nodes'),
    pointer('status'),
    flags('flags', MPOL_MF),
  ],
  memfd_create: [path('name'), flags('flags', flagSet(mman, /^MFD_/))],
  memfd_secret: [hexadecimal('flags')],
  userfaultfd: [flags('flags', UFFD_FLAGS)],
} as const;
