import { readFileSync } from 'node:fs';
import * as U from '../../abi/io-uring.js';
import { PAGE_SIZE } from '../../abi/mman.js';
import { KernelMemoryError } from '../../kernel/bpf/error.js';
import { type KernelMemory, kernelMemory } from '../../kernel/bpf/kernel-memory.js';
import { Structure } from '../../kernel/bpf/structure.js';

/**
 * What the kernel keeps of a ring, struct io_ring_ctx (include/linux/io_uring_types.h), read where it lies: fdinfo has
 * neither the flags it was set up with, nor most of what can be registered, nor which operations are on their way.
 * Every operation is a struct io_kiocb that was allocated for this ring (nr_req_allocated, Linux 6.16) and lies in the
 * ring's list of free ones unless it is on its way: whether it polls, waits for a timer, a futex, a disk or a worker.
 */
export interface Ring {
  /** IORING_SETUP_* */
  readonly flags: number;
  readonly sqEntries: number;
  readonly cqEntries: number;
  /** Operations that were ever submitted, and completions ever posted, modulo 2³². */
  readonly sqHead: number;
  readonly cqTail: number;
  readonly clock: number;
  /** How many workers a task may have for it, bounded and unbounded; 0 where that is not limited. */
  readonly workers: WorkerLimits | undefined;
  /** Addresses of registered files in the kernel, 0 where there is none. */
  readonly files: readonly bigint[];
  /** Of registered files, where those are put that an operation opens. */
  readonly fileRange: { readonly start: number; readonly end: number };
  readonly eventfd: { readonly context: bigint; readonly isAsync: boolean } | undefined;
  readonly buffers: readonly RegisteredBuffer[];
  /** Addresses in the kernel of its file, and of the one task that may submit (0: any may). */
  readonly file: bigint;
  readonly submitter: bigint;
  /** To look at it by: valid as long as the descriptor is that it was read through. */
  readonly memory: RingMemory;
  /** Addresses in the kernel of registered files as such (struct io_rsrc_node), 0 where there is none. */
  readonly fileNodes: readonly bigint[];
  /** Operations on their way. */
  readonly inFlight: number;
  /** Completions found no room, or are being posted; `deferred` are those that wait for the one task that may submit. */
  readonly isPosting: boolean;
  readonly deferred: readonly bigint[];
  /** struct io_ring_ctx, read at once. */
  readonly context: Structure;
  /** Why it cannot be rebuilt. */
  readonly problems: readonly string[];
}

export type WorkerLimits = readonly [bounded: number, unbounded: number];

/** A registered buffer; one without any length is a gap. */
export interface RegisteredBuffer {
  /** In the process that registered it. */
  readonly address: bigint;
  readonly length: number;
  /** struct bio_vec: addresses of descriptions of pages, with bytes from there. */
  readonly pieces: readonly { readonly page: bigint; readonly offset: number; readonly length: number }[];
}

export interface RingMemory {
  readonly fd: number;
  /** Bytes that its rings take when they are mapped. */
  readonly length: number;
  /** Address of the description of the first page. */
  readonly firstPage: bigint;
}

/** Which flags a ring can be rebuilt with. */
const REBUILT =
  U.IORING_SETUP_CQSIZE |
  U.IORING_SETUP_CLAMP |
  U.IORING_SETUP_ATTACH_WQ |
  U.IORING_SETUP_R_DISABLED |
  U.IORING_SETUP_SUBMIT_ALL |
  U.IORING_SETUP_COOP_TASKRUN |
  U.IORING_SETUP_TASKRUN_FLAG |
  U.IORING_SETUP_SQE128 |
  U.IORING_SETUP_CQE32 |
  U.IORING_SETUP_SINGLE_ISSUER |
  U.IORING_SETUP_DEFER_TASKRUN |
  U.IORING_SETUP_NO_SQARRAY |
  U.IORING_SETUP_CQE_MIXED;

const FLAG_PROBLEMS: readonly (readonly [number, string])[] = [
  [U.IORING_SETUP_SQPOLL, 'a thread of the kernel polls it (IORING_SETUP_SQPOLL)'],
  [U.IORING_SETUP_IOPOLL, 'it polls devices (IORING_SETUP_IOPOLL)'],
  [U.IORING_SETUP_NO_MMAP, 'it lies in memory that the program gave (IORING_SETUP_NO_MMAP)'],
];

/** The ring behind a descriptor of this process. */
export function readRing(fd: number): Ring {
  const memory = kernelMemory();
  const file = memory.file(memory.task(process.pid), fd);
  const address = memory.pointer(memory.member(file, 'file', 'private_data'));
  const context = new Structure(memory, 'io_ring_ctx', address);
  const free = memory.listLength(context.addressOf('submit_state.free_list'));
  const files = readFiles(context);
  const buffers = readBuffers(context);
  return {
    flags: context.word('flags'),
    sqEntries: context.word('sq_entries'),
    cqEntries: context.word('cq_entries'),
    sqHead: context.word('cached_sq_head'),
    cqTail: context.word('cached_cq_tail'),
    clock: context.word('clockid'),
    workers: context.flag('iowq_limits_set') ? context.pair('iowq_limits') : undefined,
    files: files.files,
    fileRange: { start: context.word('file_alloc_start'), end: context.word('file_alloc_end') },
    eventfd: readEventfd(context),
    buffers: buffers.buffers,
    file,
    submitter: context.pointer('submitter_task'),
    memory: {
      fd,
      length: context.word('ring_region.nr_pages') * PAGE_SIZE,
      firstPage: memory.pointer(context.pointer('ring_region.pages')),
    },
    fileNodes: files.nodes,
    inFlight: context.word('nr_req_allocated') - free,
    isPosting: !context.isEmpty('cq_overflow_list') || context.pointer('fallback_llist') !== 0n,
    deferred: [context.pointer('work_llist'), context.pointer('retry_llist')],
    context,
    problems: [...problemsOf(context), ...files.problems, ...buffers.problems],
  };
}

function problemsOf(context: Structure): string[] {
  const flags = context.word('flags');
  const problems = FLAG_PROBLEMS.flatMap(([flag, problem]) => ((flags & flag) === 0 ? [] : [problem]));
  const unknown = flags & ~REBUILT;
  if (problems.length === 0 && unknown !== 0)
    problems.push(`it was set up with flags 0x${unknown.toString(16)}, which cannot be rebuilt`);
  const has = (condition: boolean, problem: string) => {
    if (condition) problems.push(problem);
  };
  has(context.flag('compat'), 'it is of a 32-bit program');
  has(context.flag('restricted') || context.flag('restrictions.registered'), 'it is restricted');
  has(context.pointer('io_bl_xa.xa_head') !== 0n, 'buffers are provided for it to choose from');
  has(context.pointer('personalities.xa_head') !== 0n, 'credentials are registered with it');
  has(context.pointer('zcrx_ctxs.xa_head') !== 0n, 'a network interface receives into it');
  has(
    context.pointer('cq_wait_arg') !== 0n || context.pointer('param_region.pages') !== 0n,
    'memory for its parameters is registered with it',
  );
  return problems;
}

/** Flags that the kernel keeps in the low bits of a registered file's address (io_uring/filetable.h). */
const FILE_BITS = 7n;

function readFiles(context: Structure): { files: bigint[]; nodes: bigint[]; problems: string[] } {
  const { memory } = context;
  const problems: string[] = [];
  const nodes = registered(context, 'file_table.data', 'registered file', problems);
  const files = nodes.map((node) =>
    node === 0n ? 0n : memory.pointer(memory.member(node, NODE, 'file_ptr')) & ~FILE_BITS,
  );
  return { files, nodes, problems };
}

function readBuffers(context: Structure): { buffers: RegisteredBuffer[]; problems: string[] } {
  const { memory } = context;
  const problems: string[] = [];
  const buffers = registered(context, 'buf_table', 'registered buffer', problems).map((node, index) => {
    if (node === 0n) return { address: 0n, length: 0, pieces: [] };
    const buffer = memory.pointer(memory.member(node, NODE, 'buf'));
    const at = (path: string) => memory.types.offset(BUFFER, path);
    const bytes = memory.read(buffer, memory.types.size(BUFFER));
    if (bytes[at('is_kbuf')] !== 0) problems.push(`registered buffer ${index} is memory of a driver`);
    const vectors = memory.read(buffer + BigInt(at('bvec')), bytes.readUInt32LE(at('nr_bvecs')) * 16);
    return {
      address: bytes.readBigUInt64LE(at('ubuf')),
      length: bytes.readUInt32LE(at('len')),
      pieces: Array.from({ length: vectors.length / 16 }, (_, piece) => ({
        page: vectors.readBigUInt64LE(piece * 16),
        length: vectors.readUInt32LE(piece * 16 + 8),
        offset: vectors.readUInt32LE(piece * 16 + 12),
      })),
    };
  });
  return { buffers, problems };
}

/** Addresses of what is registered (struct io_rsrc_data), 0 where there is none; what has a tag is a problem. */
function registered(context: Structure, table: string, what: string, problems: string[]): bigint[] {
  const { memory } = context;
  const count = context.word(`${table}.nr`);
  if (count === 0) return [];
  const nodes = memory.read(context.pointer(`${table}.nodes`), count * 8);
  return Array.from({ length: count }, (_, index) => {
    const node = nodes.readBigUInt64LE(index * 8);
    if (node !== 0n && memory.pointer(memory.member(node, NODE, 'tag')) !== 0n)
      problems.push(`${what} ${index} has a tag`);
    return node;
  });
}

const NODE = 'io_rsrc_node';
const BUFFER = 'io_mapped_ubuf';

function readEventfd(context: Structure): Ring['eventfd'] {
  const { memory } = context;
  const registered = context.pointer('io_ev_fd');
  if (registered === 0n) return undefined;
  const isAsync = memory.read(memory.member(registered, 'io_ev_fd', 'eventfd_async'), 4).readUInt32LE(0) & 1;
  return {
    context: memory.pointer(memory.member(registered, 'io_ev_fd', 'cq_ev_fd')),
    isAsync: isAsync !== 0,
  };
}

/** Addresses of the rings that a thread knows by numbers (IORING_REGISTER_RING_FDS); `tid` is as this process sees it. */
export function registeredRings(tid: number): bigint[] {
  const memory = kernelMemory();
  const context = memory.pointer(memory.member(memory.task(tid), 'task_struct', 'io_uring'));
  if (context === 0n) return [];
  const bytes = memory.read(memory.member(context, 'io_uring_task', 'registered_rings'), RINGS_MAX * 8);
  return Array.from({ length: RINGS_MAX }, (_, index) => bytes.readBigUInt64LE(index * 8));
}

/** IO_RINGFD_REG_MAX */
const RINGS_MAX = 16;

/**
 * Are workers of a thread kept to fewer CPUs than its cpuset has (IORING_REGISTER_IOWQ_AFF)? io_uring/io-wq.c: they
 * begin with those of the cpuset. `tid` is as this process sees it.
 */
export function hasBoundWorkers(tid: number): boolean {
  const memory = kernelMemory();
  const task = memory.task(tid);
  const context = memory.pointer(memory.member(task, 'task_struct', 'io_uring'));
  const workers = context === 0n ? 0n : memory.pointer(memory.member(context, 'io_uring_task', 'io_wq'));
  if (workers === 0n) return false;
  const allowed = readCpus(memory, cpusetOf(memory, task), 'cpuset', 'effective_cpus');
  const own = readCpus(memory, workers, 'io_wq', 'cpu_mask');
  return allowed.some((bits, index) => (bits & ~(own[index] ?? 0)) !== 0);
}

/** The cpuset cgroup of a task (kernel/cgroup/cpuset-internal.h). */
function cpusetOf(memory: KernelMemory, task: bigint): bigint {
  const groups = memory.pointer(memory.member(task, 'task_struct', 'cgroups'));
  const states = memory.member(groups, 'css_set', 'subsys');
  // The first of all controllers, wherever the kernel has it (include/linux/cgroup_subsys.h).
  const state = memory.pointer(states);
  const controller = memory.pointer(memory.member(state, 'cgroup_subsys_state', 'ss'));
  const name = memory.pointer(memory.member(controller, 'cgroup_subsys', 'name'));
  if (memory.read(name, 7).toString('latin1') !== 'cpuset\0')
    throw new KernelMemoryError('the kernel has no cpusets, or has them where they are not looked for');
  return state - BigInt(memory.types.offset('cpuset', 'css'));
}

/** A cpumask_var_t: a mask or, in kernels for thousands of CPUs (CONFIG_CPUMASK_OFFSTACK), its address. */
function readCpus(memory: KernelMemory, address: bigint, name: string, path: string): Buffer {
  const at = memory.member(address, name, path);
  // "0-7": it is as long as that takes, in words.
  const possible = readFileSync('/sys/devices/system/cpu/possible', 'utf8');
  const last = Number(/(\d+)\s*$/.exec(possible)?.[1] ?? 0);
  return memory.read(memory.types.isPointer(name, path) ? memory.pointer(at) : at, ((last >>> 6) + 1) * 8);
}
