import { POLLIN, POLLRDHUP } from '../../abi/event.js';
import * as U from '../../abi/io-uring.js';
import * as S from '../../abi/socket.js';
import { KernelMemoryError } from '../../kernel/bpf/error.js';
import { kernelMemory } from '../../kernel/bpf/kernel-memory.js';
import { SyscallError } from '../../kernel/errors.js';
import { pollNow } from '../../kernel/poll.js';
import type { Descriptor, Process, Thread } from '../contract.js';
import { throughDuplicate } from '../description/duplicate.js';
import { identify } from '../description/identify.js';
import type { OpenFiles } from './io-uring-owners.js';
import { type Entry, KINDS, type Problem } from './io-uring-request-kinds.js';
import { type Request, readRequests, readWorkedOn, workOf } from './io-uring-requests.js';
import {
  type Issuer,
  REQUESTS_MAX,
  type SavedRequest,
  type SavedRequests,
} from './io-uring-requests-codec.js';
import type { Ring } from './io-uring-state.js';

/**
 * Operations on their way, as what submits them again when the ring and its files are there, by the thread that did: it
 * is in its memory that they read and write, and with it that they end.
 */
interface Open {
  readonly descriptor: Descriptor;
}

export interface InFlight extends SavedRequests {
  /** The thread that submitted them. */
  readonly thread?: Thread;
  /** Why some cannot be submitted again, each named. */
  readonly problems: readonly Problem[];
}

/** `ring` has just been read; `open` is what the tree has open. */
export function inFlightOf<T extends Open>(ring: Ring, open: OpenFiles<T>): InFlight {
  const requests = ring.inFlight === 0 ? [] : readRequests(ring.context);
  const problems: Problem[] = [];
  const elsewhere = ring.inFlight - requests.length;
  if (isPosting(ring, requests))
    problems.push({
      problem: 'completions of it are being posted, or wait for room in its ring',
      passes: true,
    });
  if (elsewhere !== 0) problems.push(...elsewhereOf(elsewhere, ring, open));
  if (requests.length === 0) return { requests: [], problems };
  const issuing = issuerOf(ring, requests, open);
  if ('problem' in issuing) return { requests: [], problems: [...problems, issuing] };
  const saved = new Collector(ring, open, issuing.thread.process).collect(requests, problems);
  if (saved.length > REQUESTS_MAX)
    problems.push({ problem: `more than ${REQUESTS_MAX} operations are on their way`, passes: true });
  return { requests: saved, ...issuing, problems };
}

/** Those that no list names as waiting: of workers, and others, of which it is not known what they are. */
function elsewhereOf<T extends Open>(count: number, ring: Ring, open: OpenFiles<T>): Problem[] {
  const threads = open.processes
    .filter((process) => open.has(process, ring.file))
    .flatMap(({ threads }) => threads);
  const problems = threads.flatMap((thread) =>
    ifSeen(() => readWorkedOn(ring.context, [kernelMemory().task(thread.tid)])).map((request) => ({
      problem: `${nameOfRequest(request)}: a worker of thread ${thread.insideTid} is at it`,
      passes: true,
    })),
  );
  const rest = count - problems.length;
  if (rest > 0)
    problems.push({
      problem: `${rest} of its operations are on their way elsewhere (at disks, waiting for something other than a file, about to complete)`,
      passes: true,
    });
  return problems;
}

/** Workers come and go, and have been kept in several ways. */
function ifSeen<T>(read: () => T[]): T[] {
  try {
    return read();
  } catch (error) {
    if (error instanceof KernelMemoryError || error instanceof SyscallError) return [];
    throw error;
  }
}

/** What waits for a task to see to it: operations whose file is ready are tried again in any case. */
function isPosting(ring: Ring, requests: readonly Request[]): boolean {
  const known = new Set(requests.map(({ kiocb }) => kiocb.address));
  const work = ring.deferred.flatMap((first) => workOf(first, kernelMemory()));
  return ring.isPosting || work.some((address) => !known.has(address));
}

function issuerOf<T extends Open>(
  ring: Ring,
  requests: readonly Request[],
  open: OpenFiles<T>,
): { thread: Thread; issuer: Issuer } | Problem {
  const tasks = new Set(requests.map(({ task }) => task));
  if (tasks.size > 1)
    return { problem: 'operations that several threads have submitted are on their way', passes: false };
  for (const process of open.processes) {
    const fd = open.numberIn(process, ring.file);
    if (fd === undefined) continue;
    const thread = process.threads.find(({ tid }) => tasks.has(kernelMemory().task(tid)));
    if (thread !== undefined) return { thread, issuer: { tid: thread.insideTid, fd } };
  }
  return {
    problem: 'operations are on their way of a process that has closed it, or is not of the tree',
    passes: false,
  };
}

const POLL_CANCELLED = 0x8000_0000;

class Collector<T extends Open> {
  readonly #ring: Ring;
  readonly #open: OpenFiles<T>;
  readonly #process: Process;

  constructor(ring: Ring, open: OpenFiles<T>, process: Process) {
    this.#ring = ring;
    this.#open = open;
    this.#process = process;
  }

  collect(requests: readonly Request[], problems: Problem[]): SavedRequest[] {
    const byAddress = new Map(requests.map((request) => [request.kiocb.address, request]));
    const taken = new Set<Request>();
    const saved: SavedRequest[] = [];
    const add = (request: Request, linked: boolean) => {
      taken.add(request);
      const made = this.#saved(request, linked);
      if ('problem' in made)
        problems.push({ ...made, problem: `${nameOfRequest(request)}: ${made.problem}` });
      else saved.push(made);
    };
    const isTail = ({ opcode }: Request) => opcode === U.IORING_OP_LINK_TIMEOUT;
    for (const request of requests) {
      if (isTail(request)) continue;
      const next = byAddress.get(request.next);
      const hasTimeout = next !== undefined && isTail(next) && next.next === 0n;
      if (request.next !== 0n && !hasTimeout) {
        problems.push({
          problem: `${nameOfRequest(request)}: others are linked behind it`,
          passes: false,
        });
        taken.add(request);
        continue;
      }
      add(request, hasTimeout);
      if (hasTimeout) add(next, false);
    }
    for (const request of requests)
      if (!taken.has(request))
        problems.push({
          problem: `${nameOfRequest(request)}: what it is a timeout of is elsewhere`,
          passes: true,
        });
    return saved;
  }

  #saved(request: Request, linked: boolean): SavedRequest | Problem {
    const kind = KINDS.get(request.opcode);
    if (kind === undefined) return { problem: 'it cannot be submitted again', passes: true };
    if (has(request, 'BUFFER_SELECT'))
      return { problem: 'it chooses among buffers that are provided', passes: false };
    const isTimeout = request.file === 0n;
    if (!isTimeout && (request.kiocb.word('poll_refs') & POLL_CANCELLED) !== 0)
      return { problem: 'it is being cancelled', passes: true };
    const target = isTimeout ? { fd: -1, isFixed: false } : this.#target(request);
    if (target === undefined)
      return { problem: 'its file is open in its process no more, nor registered', passes: false };
    const { file } = request;
    const isConnection = !isTimeout && this.#asks(file, isConnected) === true;
    const entry = kind(request, {
      pid: this.#process.pid,
      context: this.#ring.context,
      isConnection,
      isReadable: () => this.#asks(file, isReadable) !== false,
    });
    if ('problem' in entry) return entry;
    const flags =
      (target.isFixed ? U.IOSQE_FIXED_FILE : 0) |
      (has(request, 'FORCE_ASYNC') ? U.IOSQE_ASYNC : 0) |
      (has(request, 'CQE_SKIP') ? U.IOSQE_CQE_SKIP_SUCCESS : 0) |
      (!linked ? 0 : has(request, 'HARDLINK') ? U.IOSQE_IO_HARDLINK : U.IOSQE_IO_LINK);
    const sqe = submission(request, entry, { flags, fd: target.fd });
    return entry.time === undefined ? { sqe } : { sqe, time: entry.time };
  }

  /** By a number of the ring's own, or a descriptor. */
  #target({ file, node }: Request): { fd: number; isFixed: boolean } | undefined {
    const index = node === 0n ? -1 : this.#ring.fileNodes.indexOf(node);
    if (index >= 0) return { fd: index, isFixed: true };
    const fd = this.#open.numberIn(this.#process, file);
    if (fd !== undefined) return { fd, isFixed: false };
    const same = this.#ring.files.indexOf(file);
    return same < 0 ? undefined : { fd: same, isFixed: true };
  }

  /** As a duplicate says; undefined where nobody of the tree has the file open. */
  #asks(file: bigint, ask: (descriptor: Descriptor) => boolean): boolean | undefined {
    const descriptor = this.#open.at(file)?.descriptor;
    return descriptor === undefined ? undefined : ask(descriptor);
  }
}

function has({ flags, kiocb }: Request, name: string): boolean {
  return (flags & (1n << BigInt(kiocb.memory.types.value(`REQ_F_${name}_BIT`)))) !== 0n;
}

/** "RECV (user_data 0x2a)" */
function nameOfRequest({ opcode, userData }: Request): string {
  const name = kernelMemory().types.nameOfValue('io_uring_op', opcode) ?? `operation ${opcode}`;
  return `${name.replace('IORING_OP_', '')} (user_data 0x${userData.toString(16)})`;
}

function isConnected(descriptor: Descriptor): boolean {
  const { family, type } = identify(descriptor) ?? {};
  return (family === S.AF_INET || family === S.AF_INET6) && type === S.SOCK_STREAM;
}

function isReadable(descriptor: Descriptor): boolean {
  return throughDuplicate(descriptor, (taken) => pollNow(taken, POLLIN | POLLRDHUP)) !== 0;
}

/** struct io_uring_sqe */
function submission(
  { opcode, userData }: Request,
  entry: Entry,
  { flags, fd }: { flags: number; fd: number },
): Uint8Array {
  const sqe = new Uint8Array(U.SQE.size);
  const view = new DataView(sqe.buffer);
  view.setUint8(U.SQE.opcode, entry.opcode ?? opcode);
  view.setUint8(U.SQE.flags, flags);
  view.setUint16(U.SQE.ioprio, entry.ioprio ?? 0, true);
  view.setInt32(U.SQE.fd, fd, true);
  view.setBigUint64(U.SQE.off, entry.offset ?? 0n, true);
  view.setBigUint64(U.SQE.addr, entry.address ?? 0n, true);
  view.setUint32(U.SQE.len, entry.length ?? 0, true);
  view.setUint32(U.SQE.opFlags, entry.opFlags ?? 0, true);
  view.setBigUint64(U.SQE.userData, userData, true);
  view.setUint16(U.SQE.bufIndex, entry.bufIndex ?? 0, true);
  view.setUint32(U.SQE.fileIndex, entry.fileIndex ?? 0, true);
  return sqe;
}
