import type { DescMessage, MessageShape } from '@bufbuild/protobuf';
import { MAGIC } from './magic.js';
import { cgroup_entrySchema } from './schema/generated/cgroup_pb.js';
import {
  core_entrySchema,
  fs_entrySchema,
  seccomp_entrySchema,
  task_kobj_ids_entrySchema,
} from './schema/generated/core_pb.js';
import {
  file_lock_entrySchema,
  ghost_chunk_entrySchema,
  ghost_file_entrySchema,
  remap_file_path_entrySchema,
} from './schema/generated/file-common_pb.js';
import { bpfmap_data_entrySchema, memfd_inode_entrySchema } from './schema/generated/file-regular_pb.js';
import {
  pipe_data_entrySchema,
  tty_data_entrySchema,
  tty_info_entrySchema,
} from './schema/generated/file-stream_pb.js';
import { fdinfo_entrySchema, file_entrySchema } from './schema/generated/files_pb.js';
import {
  cpuinfo_entrySchema,
  inventory_entrySchema,
  pstree_entrySchema,
  stats_entrySchema,
} from './schema/generated/inventory_pb.js';
import {
  ipc_msg_entrySchema,
  ipc_msgSchema,
  ipc_sem_entrySchema,
  ipc_shm_entrySchema,
  ipc_var_entrySchema,
} from './schema/generated/ipc_pb.js';
import { mm_entrySchema } from './schema/generated/memory_pb.js';
import {
  apparmor_entrySchema,
  binfmt_misc_entrySchema,
  mnt_entrySchema,
  pidns_entrySchema,
  timens_entrySchema,
  userns_entrySchema,
  utsns_entrySchema,
} from './schema/generated/namespace_pb.js';
import { net_device_entrySchema, netns_entrySchema } from './schema/generated/network_pb.js';
import { sk_packet_entrySchema, tcp_stream_entrySchema } from './schema/generated/socket_pb.js';

/** What distinguishes the files of one kind: a pid, a table's id, an inode's number. shmids need a bigint. */
export type ImageId = number | bigint;

/**
 * The bytes after a record: parts of known length, or pairs of a nested record and its bytes (`nested` of them,
 * Infinity for as many as the file has), or all that is left of the file. Each part is filled up with zeros to a
 * multiple of `pad`.
 */
export interface RawLayout {
  readonly lengths?: readonly (number | bigint)[];
  readonly nested?: number;
  readonly rest?: true;
  readonly pad?: 4 | 8;
}

/** One kind of image file. The pagemaps are not here: two kinds of message a file, and a codec of their own. */
export interface ImageKind<S extends DescMessage = DescMessage, N extends DescMessage = DescMessage> {
  readonly magic: number;
  readonly schema: S;
  /** The group word before the type word: the common one unless given. */
  readonly group?: 'service' | 'none';
  /** Absent where records are followed by nothing. */
  readonly raw?: (message: MessageShape<S>) => RawLayout;
  readonly nested?: { readonly schema: N; readonly length: (message: MessageShape<N>) => number | bigint };
}

type Named<F, S extends DescMessage, N extends DescMessage> = ImageKind<S, N> & { readonly file: F };
type Rest<S extends DescMessage, N extends DescMessage> = Omit<ImageKind<S, N>, 'magic' | 'schema'>;

function single<S extends DescMessage, N extends DescMessage = never>(
  file: string,
  magic: number,
  schema: S,
  rest: Rest<S, N> = {},
): Named<string, S, N> {
  return { file, magic, schema, ...rest };
}

function perId<S extends DescMessage, N extends DescMessage = never>(
  file: (id: ImageId) => string,
  magic: number,
  schema: S,
  rest: Rest<S, N> = {},
): Named<(id: ImageId) => string, S, N> {
  return { file, magic, schema, ...rest };
}

const pipeData = { raw: (m: { bytes: number }): RawLayout => ({ lengths: [m.bytes] }) };

/** Every kind of image, by the name its files begin with. */
export const KINDS = {
  inventory: single('inventory.img', MAGIC.INVENTORY, inventory_entrySchema, { group: 'none' }),
  pstree: single('pstree.img', MAGIC.PSTREE, pstree_entrySchema),
  core: perId((id) => `core-${id}.img`, MAGIC.CORE, core_entrySchema),
  ids: perId((id) => `ids-${id}.img`, MAGIC.IDS, task_kobj_ids_entrySchema),
  mm: perId((id) => `mm-${id}.img`, MAGIC.MM, mm_entrySchema),
  fs: perId((id) => `fs-${id}.img`, MAGIC.FS, fs_entrySchema),
  seccomp: single('seccomp.img', MAGIC.SECCOMP, seccomp_entrySchema),
  cgroup: single('cgroup.img', MAGIC.CGROUP, cgroup_entrySchema),
  apparmor: single('apparmor.img', MAGIC.APPARMOR, apparmor_entrySchema),
  cpuinfo: single('cpuinfo.img', MAGIC.CPUINFO, cpuinfo_entrySchema),

  fdinfo: perId((id) => `fdinfo-${id}.img`, MAGIC.FDINFO, fdinfo_entrySchema),
  files: single('files.img', MAGIC.FILES, file_entrySchema),
  filelocks: single('filelocks.img', MAGIC.FILE_LOCKS, file_lock_entrySchema),
  memfd: single('memfd.img', MAGIC.MEMFD_INODE, memfd_inode_entrySchema),
  'remap-fpath': single('remap-fpath.img', MAGIC.REMAP_FPATH, remap_file_path_entrySchema),
  'ghost-file': perId((id) => `ghost-file-${id.toString(16)}.img`, MAGIC.GHOST_FILE, ghost_file_entrySchema, {
    raw: (m) => (m.chunks ? { nested: Number.POSITIVE_INFINITY } : { rest: true }),
    nested: { schema: ghost_chunk_entrySchema, length: (chunk) => chunk.len },
  }),
  'bpfmap-data': single('bpfmap-data.img', MAGIC.BPFMAP_DATA, bpfmap_data_entrySchema, {
    raw: (m) => ({ lengths: [m.keysBytes, m.valuesBytes] }),
  }),
  'pipes-data': single('pipes-data.img', MAGIC.PIPES_DATA, pipe_data_entrySchema, pipeData),
  'fifo-data': single('fifo-data.img', MAGIC.FIFO_DATA, pipe_data_entrySchema, pipeData),
  'tty-info': single('tty-info.img', MAGIC.TTY_INFO, tty_info_entrySchema),
  'tty-data': single('tty-data.img', MAGIC.TTY_DATA, tty_data_entrySchema),

  'sk-queues': single('sk-queues.img', MAGIC.SK_QUEUES, sk_packet_entrySchema, {
    raw: (m) => ({ lengths: [m.length] }),
  }),
  'tcp-stream': perId((id) => `tcp-stream-${id.toString(16)}.img`, MAGIC.TCP_STREAM, tcp_stream_entrySchema, {
    raw: (m) => ({ lengths: [m.inqLen, m.outqLen] }),
  }),

  'ipcns-var': perId((id) => `ipcns-var-${id}.img`, MAGIC.IPC_VAR, ipc_var_entrySchema),
  'ipcns-shm': perId((id) => `ipcns-shm-${id}.img`, MAGIC.IPCNS_SHM, ipc_shm_entrySchema, {
    raw: (m) => (m.inPagemaps ? {} : { lengths: [m.size], pad: 4 }),
  }),
  'ipcns-sem': perId((id) => `ipcns-sem-${id}.img`, MAGIC.IPCNS_SEM, ipc_sem_entrySchema, {
    raw: (m) => ({ lengths: [m.nsems * 2], pad: 8 }),
  }),
  'ipcns-msg': perId((id) => `ipcns-msg-${id}.img`, MAGIC.IPCNS_MSG, ipc_msg_entrySchema, {
    raw: (m) => ({ nested: m.qnum, pad: 8 }),
    nested: { schema: ipc_msgSchema, length: (message) => message.msize },
  }),

  utsns: perId((id) => `utsns-${id}.img`, MAGIC.UTSNS, utsns_entrySchema),
  userns: perId((id) => `userns-${id}.img`, MAGIC.USERNS, userns_entrySchema),
  pidns: perId((id) => `pidns-${id}.img`, MAGIC.PIDNS, pidns_entrySchema),
  timens: perId((id) => `timens-${id}.img`, MAGIC.TIMENS, timens_entrySchema),
  netns: perId((id) => `netns-${id}.img`, MAGIC.NETNS, netns_entrySchema),
  netdev: perId((id) => `netdev-${id}.img`, MAGIC.NETDEV, net_device_entrySchema),
  mountpoints: perId((id) => `mountpoints-${id}.img`, MAGIC.MNTS, mnt_entrySchema),
  'binfmt-misc': single('binfmt-misc.img', MAGIC.BINFMT_MISC, binfmt_misc_entrySchema),

  'stats-dump': single('stats-dump', MAGIC.STATS, stats_entrySchema, { group: 'service' }),
  'stats-restore': single('stats-restore', MAGIC.STATS, stats_entrySchema, { group: 'service' }),
} as const;

export type KindName = keyof typeof KINDS;
/** Kinds with one file an image. */
export type SingleKind = { [K in KindName]: (typeof KINDS)[K]['file'] extends string ? K : never }[KindName];
/** Kinds with a file for each id. */
export type PerIdKind = Exclude<KindName, SingleKind>;

export type MessageOf<K extends KindName> = MessageShape<(typeof KINDS)[K]['schema']>;
type NestedSchema<K extends KindName> =
  (typeof KINDS)[K] extends Named<infer _F, infer _S, infer N> ? N : never;
export type NestedOf<K extends KindName> = MessageShape<NestedSchema<K>>;

/** What follows a kind's name where a file is meant: its id, or null for the kinds with one file. */
export type IdOf<K extends KindName> = K extends SingleKind ? null : ImageId;
export type IdArgument<K extends KindName> = K extends SingleKind ? [] : [id: ImageId];

/** The kind's description with the types of its messages forgotten, for code that works on all of them. */
export function kindOf(name: KindName): ImageKind & { readonly file: string | ((id: ImageId) => string) } {
  return KINDS[name] as unknown as ImageKind & { readonly file: string | ((id: ImageId) => string) };
}

/** The name of the file of a kind. */
export function fileOf(name: KindName, id: ImageId | null): string {
  const { file } = kindOf(name);
  if (typeof file === 'string') return file;
  if (id === null || id < 0) throw new TypeError(`An image of kind ${name} needs an id, not ${id}`);
  return file(id);
}

/** Kinds whose ids are written in hexadecimal. */
const HEXADECIMAL: ReadonlySet<string> = new Set<KindName>(['ghost-file', 'tcp-stream']);

const SINGLE_FILES: ReadonlyMap<string, KindName> = new Map(
  (Object.keys(KINDS) as KindName[]).flatMap((kind): [string, KindName][] => {
    const { file } = KINDS[kind];
    return typeof file === 'string' ? [[file, kind]] : [];
  }),
);

const PER_ID_FILE = /^(.+)-([0-9a-f]+)\.img$/;

/** Which kind a file's name belongs to, and its id; undefined for raw files, pagemaps and strangers. */
export function kindOfFile(file: string): { kind: KindName; id: ImageId | null } | undefined {
  const single = SINGLE_FILES.get(file);
  if (single !== undefined) return { kind: single, id: null };
  const [, kind = '', digits = ''] = PER_ID_FILE.exec(file) ?? [];
  if (!isPerIdKind(kind)) return undefined;
  const isHexadecimal = HEXADECIMAL.has(kind);
  if (!isHexadecimal && /[a-f]/.test(digits)) return undefined;
  const id = BigInt(isHexadecimal ? `0x${digits}` : digits);
  return { kind, id: id <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(id) : id };
}

function isPerIdKind(kind: string): kind is PerIdKind {
  return Object.hasOwn(KINDS, kind) && typeof KINDS[kind as KindName].file === 'function';
}

const RAW_FILE =
  /^(pages-\d+|(ifaddr|route|route6|rule|iptables|ip6tables|nftables|netns-ct|netns-exp)-\d+)\.img$|^tmpfs(-dev)?-\d+\.tar\.gz\.img$/;
const PAGEMAP_FILE = /^pagemap-(shmem-)?(\d+)\.img$/;

/** Whether a file is one of those without a magic and records: pages, network state, tmpfs archives. */
export function isRawFile(file: string): boolean {
  return RAW_FILE.test(file);
}

/** The owner of a pagemap by its file's name. */
export function pagemapOfFile(file: string): { shmem: boolean; id: bigint } | undefined {
  const match = PAGEMAP_FILE.exec(file);
  return match?.[2] === undefined ? undefined : { shmem: match[1] !== undefined, id: BigInt(match[2]) };
}
