/** Signatures of the calls on IPC, keys, mounts and modules of the system. */
import {
  constants,
  dirfd,
  fd,
  flagSet,
  flags,
  hexadecimal,
  int,
  long,
  mode,
  one,
  path,
  pointer,
  size,
  uint,
} from './argument.js';
import * as ipc from './ipc.js';
import * as mount from './mount.js';
import { AT_FLAGS, OPEN_FLAGS } from './signatures-file.js';

const COMMANDS = /^IPC_(RMID|SET|STAT|INFO)$/;
const key = one('key', constants(ipc, /^IPC_PRIVATE$/));
/** The low nine bits are permissions. */
const getFlags = mode('flg');
const treeFlags = [dirfd(), path()] as const;

const QUEUES = {
  shmget: [key, size(), getFlags],
  shmat: [int('shmid'), pointer('shmaddr'), flags('shmflg', flagSet(ipc, /^SHM_(RDONLY|RND|REMAP|EXEC)$/))],
  shmdt: [pointer('shmaddr')],
  shmctl: [
    int('shmid'),
    one('cmd', constants(ipc, merge(COMMANDS, /^SHM_(UN)?LOCK$|^SHM_(STAT|INFO|STAT_ANY)$/))),
    pointer('buf'),
  ],
  semget: [key, int('nsems'), getFlags],
  semop: [int('semid'), pointer('sops'), size('nsops')],
  semtimedop: [int('semid'), pointer('sops'), size('nsops'), pointer('timeout')],
  semctl: [
    int('semid'),
    int('semnum'),
    one('cmd', constants(ipc, merge(COMMANDS, /^(SEM_(STAT|INFO|STAT_ANY)|[GS]ET[A-Z]+)$/))),
    hexadecimal('arg'),
  ],
  msgget: [key, getFlags],
  msgsnd: [int('msqid'), pointer('msgp'), size('msgsz'), messageFlags()],
  msgrcv: [int('msqid'), pointer('msgp'), size('msgsz'), long('msgtyp'), messageFlags()],
  msgctl: [
    int('msqid'),
    one('cmd', constants(ipc, merge(COMMANDS, /^MSG_(STAT|INFO|STAT_ANY)$/))),
    pointer('buf'),
  ],
  mq_open: [path('name'), flags('oflag', OPEN_FLAGS), mode(), pointer('attr')],
  mq_unlink: [path('name')],
  mq_timedsend: [fd('mqdes'), pointer('msg'), size('len'), uint('prio'), pointer('timeout')],
  mq_timedreceive: [fd('mqdes'), pointer('msg'), size('len'), pointer('prio'), pointer('timeout')],
  mq_notify: [fd('mqdes'), pointer('sevp')],
  mq_getsetattr: [fd('mqdes'), pointer('newattr'), pointer('oldattr')],
} as const;

function merge(first: RegExp, second: RegExp): RegExp {
  return new RegExp(`(?:${first.source})|(?:${second.source})`);
}

function messageFlags() {
  return flags('msgflg', flagSet(ipc, /^(IPC_NOWAIT|MSG_NOERROR|MSG_EXCEPT|MSG_COPY)$/));
}

const KEYRINGS = constants(ipc, /^KEY_SPEC_/);

const KEYS = {
  add_key: [path('type'), path('description'), pointer('payload'), size('plen'), one('keyring', KEYRINGS)],
  request_key: [path('type'), path('description'), path('callout_info'), one('keyring', KEYRINGS)],
  keyctl: [
    one('operation', constants(ipc, /^KEYCTL_/)),
    hexadecimal('arg2'),
    hexadecimal('arg3'),
    hexadecimal('arg4'),
    hexadecimal('arg5'),
  ],
} as const;

const MOUNTS = {
  mount: [
    path('source'),
    path('target'),
    path('fstype'),
    flags('flags', flagSet(mount, /^MS_/)),
    pointer('data'),
  ],
  umount2: [path('target'), flags('flags', flagSet(mount, /^(MNT_|UMOUNT_)/))],
  pivot_root: [path('new_root'), path('put_old')],
  open_tree: [...treeFlags, flags('flags', openTreeFlags())],
  open_tree_attr: [...treeFlags, flags('flags', openTreeFlags()), pointer('attr'), size()],
  move_mount: [
    dirfd('from_dirfd'),
    path('from_path'),
    dirfd('to_dirfd'),
    path('to_path'),
    flags('flags', flagSet(mount, /^MOVE_MOUNT_/)),
  ],
  fsopen: [path('fsname'), flags('flags', flagSet(mount, /^FSOPEN_/))],
  fsconfig: [fd(), one('cmd', constants(mount, /^FSCONFIG_/)), path('key'), pointer('value'), int('aux')],
  fsmount: [
    fd(),
    flags('flags', flagSet(mount, /^FSMOUNT_/)),
    flags('attr_flags', flagSet(mount, /^MOUNT_ATTR_(?!SIZE|_ATIME)/)),
  ],
  fspick: [...treeFlags, flags('flags', flagSet(mount, /^FSPICK_/))],
  mount_setattr: [...treeFlags, flags('flags', AT_FLAGS), pointer('attr'), size()],
  statmount: [pointer('req'), pointer('buf'), size('bufsize'), uint('flags')],
  listmount: [pointer('req'), pointer('mnt_ids'), size('nr_mnt_ids'), uint('flags')],
} as const;

/** OPEN_TREE_* beside AT_*: their bits do not overlap. */
function openTreeFlags() {
  const own = flagSet(mount, /^OPEN_TREE_/);
  return { ...own, bits: [...own.bits, ...AT_FLAGS.bits] };
}

const LSM = {
  landlock_create_ruleset: [pointer('attr'), size(), uint('flags')],
  landlock_add_rule: [fd('ruleset_fd'), int('rule_type'), pointer('rule_attr'), uint('flags')],
  landlock_restrict_self: [fd('ruleset_fd'), uint('flags')],
  lsm_get_self_attr: [uint('attr'), pointer('ctx'), pointer('size'), uint('flags')],
  lsm_set_self_attr: [uint('attr'), pointer('ctx'), size(), uint('flags')],
} as const;

export const SYSTEM_SIGNATURES = { ...QUEUES, ...KEYS, ...MOUNTS, ...LSM } as const;
