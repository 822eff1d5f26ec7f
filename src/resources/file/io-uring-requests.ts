import type { KernelMemory } from '../../kernel/bpf/kernel-memory.js';
import { Structure } from '../../kernel/bpf/structure.js';

/**
 * Operations of a ring that are on their way, as the kernel keeps them: each is a struct io_kiocb, found by the table of
 * those that wait for a file to be ready (cancel_table, io_uring/poll.c) or by the lists of timeouts
 * (io_uring/timeout.c). Those that are elsewhere (with a worker, at a disk, about to complete) are only counted.
 */
export interface Request {
  readonly kiocb: Structure;
  readonly opcode: number;
  /** REQ_F_* */
  readonly flags: bigint;
  readonly userData: bigint;
  /** Address in the kernel of its open file, 0 where it has none. */
  readonly file: bigint;
  /** Address of the registered file that it was submitted with, 0 where there was none. */
  readonly node: bigint;
  /** Address of the thread that submitted it. */
  readonly task: bigint;
  /** Address of the request that is linked behind it. */
  readonly next: bigint;
}

const KIOCB = 'io_kiocb';
const LIST_MAX = 1 << 20;

/** In the order in which they are to be submitted again; `context` is the ring's struct io_ring_ctx. */
export function readRequests(context: Structure): Request[] {
  const { memory } = context;
  const timeouts = ['timeout_list', 'ltimeout_list'].flatMap((list) => timeoutsOf(context, list));
  const addresses = [...polledOf(context), ...timeouts];
  if (addresses.length === 0) return [];
  const contents = memory.readAll(addresses, memory.types.size(KIOCB));
  const read = addresses.map((address, index) => new Structure(memory, KIOCB, address, contents[index]));
  const tasks = tasksOf(read, memory);
  const requests = read.map((kiocb) => requestOf(kiocb, tasks.get(kiocb.pointer('tctx')) ?? 0n));
  return inOrderOfWaiting(requests, memory);
}

function requestOf(kiocb: Structure, task: bigint): Request {
  return {
    kiocb,
    opcode: kiocb.byte('opcode'),
    flags: kiocb.pointer('flags'),
    userData: kiocb.pointer('cqe.user_data'),
    file: kiocb.pointer('file'),
    node: kiocb.pointer('file_node'),
    task,
    next: kiocb.pointer('link'),
  };
}

/**
 * What workers of threads do for a ring, or are about to (io_uring/io-wq.c), for its name; `tasks` are addresses of the
 * threads. They may be done with it at any moment.
 */
export function readWorkedOn(context: Structure, tasks: readonly bigint[]): Request[] {
  const { memory } = context;
  const inside = BigInt(memory.types.offset(KIOCB, 'work'));
  return tasks.flatMap((task) =>
    workOfThread(task, memory)
      .map((work) => new Structure(memory, KIOCB, work - inside))
      .filter((kiocb) => kiocb.pointer('ctx') === context.address)
      .map((kiocb) => requestOf(kiocb, task)),
  );
}

/** Of bounded work, and of work that may take for ever. */
const ACCOUNTS = 2;

/** Addresses of struct io_wq_work. */
function workOfThread(task: bigint, memory: KernelMemory): bigint[] {
  const own = memory.pointer(memory.member(task, 'task_struct', 'io_uring'));
  const workers = own === 0n ? 0n : memory.pointer(memory.member(own, 'io_uring_task', 'io_wq'));
  if (workers === 0n) return [];
  const size = memory.types.size('io_wq_acct');
  const accounts = memory.member(workers, 'io_wq', 'acct');
  const inWorker = BigInt(memory.types.offset('io_worker', 'all_list'));
  const inWork = BigInt(memory.types.offset('io_wq_work', 'list'));
  return Array.from({ length: ACCOUNTS }, (_, index) => accounts + BigInt(index * size)).flatMap(
    (account) => {
      const all = listOf(memory.member(account, 'io_wq_acct', 'all_list'), memory);
      const current = all.map((node) =>
        memory.pointer(memory.member(node - inWorker, 'io_worker', 'cur_work')),
      );
      const waiting = chainOf(
        memory.pointer(memory.member(account, 'io_wq_acct', 'work_list.first')),
        memory,
      );
      return [...current.filter((work) => work !== 0n), ...waiting.map((node) => node - inWork)];
    },
  );
}

/** A struct llist_head's elements, each of them a request with work left for the task (io_kiocb.io_task_work). */
export function workOf(first: bigint, memory: KernelMemory): bigint[] {
  const inside = BigInt(memory.types.offset(KIOCB, 'io_task_work.node'));
  return chainOf(first, memory).map((node) => node - inside);
}

/** Elements of a list each of which begins with the address of the next, 0 at the end. */
function chainOf(first: bigint, memory: KernelMemory): bigint[] {
  const nodes: bigint[] = [];
  for (let node = first; node !== 0n && nodes.length < LIST_MAX; node = memory.pointer(node))
    nodes.push(node);
  return nodes;
}

/** Every chain of the table, all of them one step further with each read. */
function polledOf(context: Structure): bigint[] {
  const { memory } = context;
  const { types } = memory;
  const size = types.size('io_hash_bucket');
  const count = 2 ** context.word('cancel_table.hash_bits');
  const buckets = memory.read(context.pointer('cancel_table.hbs'), count * size);
  const first = types.offset('io_hash_bucket', 'list.first');
  const nodes: bigint[] = [];
  let step = Array.from({ length: count }, (_, index) => buckets.readBigUInt64LE(index * size + first));
  for (;;) {
    step = step.filter((node) => node !== 0n);
    if (step.length === 0 || nodes.length > LIST_MAX) break;
    nodes.push(...step);
    const next = types.offset('hlist_node', 'next');
    step = memory.readAll(step, types.size('hlist_node')).map((node) => node.readBigUInt64LE(next));
  }
  const inside = BigInt(types.offset(KIOCB, 'hash_node'));
  return nodes.map((node) => node - inside);
}

function timeoutsOf(context: Structure, list: string): bigint[] {
  const { memory } = context;
  const inside = BigInt(memory.types.offset(KIOCB, 'cmd') + memory.types.offset('io_timeout', 'list'));
  return listOf(context.addressOf(list), memory).map((node) => node - inside);
}

/** Elements of a struct list_head. */
function listOf(head: bigint, memory: KernelMemory): bigint[] {
  const nodes: bigint[] = [];
  for (let node = memory.pointer(head); node !== head && nodes.length < LIST_MAX; node = memory.pointer(node))
    nodes.push(node);
  return nodes;
}

/** The threads behind struct io_uring_task. */
function tasksOf(kiocbs: readonly Structure[], memory: KernelMemory): Map<bigint, bigint> {
  const contexts = [...new Set(kiocbs.map((kiocb) => kiocb.pointer('tctx')))];
  return new Map(
    contexts.map((context) => [context, memory.pointer(memory.member(context, 'io_uring_task', 'task'))]),
  );
}

const WQ_FLAG_EXCLUSIVE = 1;

/** How a request waits for its file: a struct io_poll, whose entry is in a queue of the file's. */
function pollOf(request: Request, pollAdd: number, memory: KernelMemory): Structure | undefined {
  if (request.opcode === pollAdd) return request.kiocb.inside('cmd', 'io_poll');
  const armed = request.kiocb.pointer('apoll');
  return armed === 0n ? undefined : new Structure(memory, 'async_poll', armed).inside('poll', 'io_poll');
}

/**
 * Several that wait for the same file are woken in the order of its queue. Each new one is put at its head, but those
 * that want to be woken alone (EPOLLEXCLUSIVE) at its end.
 */
function inOrderOfWaiting(requests: readonly Request[], memory: KernelMemory): Request[] {
  const together = new Map<bigint, Request[]>();
  for (const request of requests) {
    if (request.file === 0n) continue;
    const others = together.get(request.file);
    if (others === undefined) together.set(request.file, [request]);
    else others.push(request);
  }
  const places = new Map<Request, number>();
  const pollAdd = memory.types.value('IORING_OP_POLL_ADD');
  for (const several of together.values()) {
    if (several.length === 1) continue;
    const queues = new Map<bigint, Map<bigint, number>>();
    for (const request of several) {
      const poll = pollOf(request, pollAdd, memory);
      const head = poll?.pointer('head') ?? 0n;
      if (poll === undefined || head === 0n) continue;
      const queue = queues.get(head) ?? placesIn(memory.member(head, 'wait_queue_head', 'head'), memory);
      queues.set(head, queue);
      const place = queue.get(poll.addressOf('wait.entry'));
      if (place === undefined) continue;
      const isExclusive = (poll.word('wait.flags') & WQ_FLAG_EXCLUSIVE) !== 0;
      places.set(request, isExclusive ? place : -place);
    }
  }
  const placeOf = (request: Request) => places.get(request) ?? Number.NEGATIVE_INFINITY;
  // Those that are about to complete go first; timeouts stay where they are, behind each other.
  return requests.toSorted((a, b) => (placeOf(a) === placeOf(b) ? 0 : placeOf(a) - placeOf(b)));
}

function placesIn(head: bigint, memory: KernelMemory): Map<bigint, number> {
  return new Map(listOf(head, memory).map((node, index) => [node, index + 1]));
}
