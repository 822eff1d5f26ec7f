import { EPOLLET, EPOLLONESHOT } from '../../abi/event.js';
import * as U from '../../abi/io-uring.js';
import { CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME } from '../../abi/process.js';
import { Structure } from '../../kernel/bpf/structure.js';
import { clock_ns } from '../../kernel/clock.js';
import type { Request } from './io-uring-requests.js';
import { sameMessage, sameVectors } from './io-uring-vectors.js';

/**
 * Each kind of operation that waits: what of struct io_uring_sqe its command data (io_uring/poll.c, net.c, rw.c,
 * timeout.c) was made of, so that it can be submitted again. One that has done a part of its work already would
 * say less of it than it did, and is not.
 */
export interface Entry {
  readonly ioprio?: number;
  readonly offset?: bigint;
  readonly address?: bigint;
  readonly length?: number;
  readonly opFlags?: number;
  readonly bufIndex?: number;
  readonly fileIndex?: number;
  /** Another operation that does the same. */
  readonly opcode?: number;
  /** Nanoseconds, of a timeout. */
  readonly time?: bigint;
}

/** Why an operation cannot be submitted again; `passes` where it may be over soon. */
export interface Problem {
  readonly problem: string;
  readonly passes: boolean;
}

/** What an operation depends on but itself. */
export interface Surroundings {
  /** The process that submitted it, as this one sees it. */
  readonly pid: number;
  /** Its file is a connection, which is rebuilt in a state in which it can be neither read nor written (TCP_REPAIR). */
  readonly isConnection: boolean;
  /** Its file has something to read. */
  readonly isReadable: () => boolean;
  /** struct io_ring_ctx */
  readonly context: Structure;
}

type Kind = (request: Request, around: Surroundings) => Entry | Problem;

export const KINDS: ReadonlyMap<number, Kind> = new Map<number, Kind>([
  [U.IORING_OP_POLL_ADD, pollAdd],
  [U.IORING_OP_TIMEOUT, timeout],
  [U.IORING_OP_LINK_TIMEOUT, timeout],
  [U.IORING_OP_ACCEPT, accept],
  [U.IORING_OP_RECV, (request, around) => received(request, around, receive)],
  [U.IORING_OP_RECVMSG, (request, around) => received(request, around, message)],
  [U.IORING_OP_READ, (request, around) => received(request, around, read)],
  [U.IORING_OP_READV, (request, around) => ofFiles(request, around, vectors)],
  [U.IORING_OP_READ_FIXED, (request, around) => ofFiles(request, around, transfer)],
  [U.IORING_OP_SEND, (request, around) => sent(request, around, send)],
  [U.IORING_OP_SENDMSG, (request, around) => sent(request, around, sendMessage)],
  [U.IORING_OP_WRITE, (request, around) => ofFiles(request, around, transfer)],
  [U.IORING_OP_WRITEV, (request, around) => ofFiles(request, around, vectors)],
  [U.IORING_OP_WRITE_FIXED, (request, around) => ofFiles(request, around, transfer)],
  [
    U.IORING_OP_EPOLL_WAIT,
    ({ kiocb }) => {
      const wait = kiocb.inside('cmd', 'io_epoll_wait');
      return { address: wait.pointer('events'), length: wait.word('maxevents') };
    },
  ],
]);

const PARTLY: Problem = { problem: 'it has done a part of its work', passes: true };
const CHANGED: Problem = {
  problem: 'its vectors, or its message header, are not in memory any more as they were submitted',
  passes: false,
};

function pollAdd({ kiocb }: Request): Entry {
  const events = kiocb.word('apoll_events');
  const isMulti = (events & EPOLLONESHOT) === 0;
  const isLevel = (events & EPOLLET) === 0;
  return {
    length: (isMulti ? U.IORING_POLL_ADD_MULTI : 0) | (isLevel ? U.IORING_POLL_ADD_LEVEL : 0),
    opFlags: (events & ~(EPOLLONESHOT | EPOLLET)) >>> 0,
  };
}

/* ---------- timeouts ---------- */

/**
 * What remains of it, as of a timerfd: also where it was set to an absolute time, but by the clock on the wall. One that
 * fires again and again begins a new interval. One that counts completions needs as many as it still did.
 */
function timeout({ kiocb }: Request, { context }: Surroundings): Entry | Problem {
  const { memory } = kiocb;
  const data = new Structure(memory, 'io_timeout_data', kiocb.pointer('async_data'));
  const own = kiocb.inside('cmd', 'io_timeout');
  const flags = data.word('flags');
  const isMulti = (flags & U.IORING_TIMEOUT_MULTISHOT) !== 0;
  const counted = own.word('off');
  if (isMulti) {
    const time = timespecOf(data);
    return { ...TIMED, offset: counted === 0 ? 0n : BigInt(own.word('repeats')), opFlags: flags, time };
  }
  const isRealtime = (flags & U.IORING_TIMEOUT_REALTIME) !== 0;
  const isAbsolute = isRealtime && (flags & U.IORING_TIMEOUT_ABS) !== 0;
  const clock = isRealtime
    ? CLOCK_REALTIME
    : (flags & U.IORING_TIMEOUT_BOOTTIME) !== 0
      ? CLOCK_BOOTTIME
      : CLOCK_MONOTONIC;
  const left = data.pointer('timer.node.expires') - clock_ns(clock);
  const entry = {
    ...TIMED,
    opFlags: isAbsolute ? flags : flags & ~U.IORING_TIMEOUT_ABS,
    time: isAbsolute ? timespecOf(data) : left > 0n ? left : 0n,
  };
  if (counted === 0) return entry;
  const seen = context.word('cached_cq_tail') - context.word('cq_timeouts');
  const needed = (own.word('target_seq') - seen) | 0;
  if (needed <= 0) return { problem: 'as many completions as it counts have been there', passes: true };
  return { ...entry, offset: BigInt(needed) };
}

const TIMED = { length: 1 } as const;
const NS_PER_S = 1_000_000_000n;
/** Nanoseconds. */
export const TIME_MAX = (1n << 63n) - 1n;

/** As much of it as the kernel's clocks can go (include/vdso/ktime.h KTIME_MAX). */
function timespecOf(data: Structure): bigint {
  const time = data.pointer('ts.tv_sec') * NS_PER_S + data.pointer('ts.tv_nsec');
  return time > TIME_MAX ? TIME_MAX : time;
}

/* ---------- sockets ---------- */

function accept({ kiocb }: Request): Entry {
  const own = kiocb.inside('cmd', 'io_accept');
  return {
    address: own.pointer('addr'),
    offset: own.pointer('addr_len'),
    opFlags: own.word('flags'),
    ioprio: own.word('iou_flags'),
    fileIndex: own.word('file_slot'),
  };
}

const IN_REPAIR = 'a connection that is being rebuilt would answer it with an error (TCP_REPAIR)';

/**
 * A connection is not to be asked before it can be: first it is waited for, and not in vain. Where what is ready waits for
 * the task to ask for it, that is when the connection is there.
 */
function received(request: Request, around: Surroundings, kind: Kind): Entry | Problem {
  if (around.isConnection && !isDeferred(around) && around.isReadable())
    return { problem: `there is something to read, and ${IN_REPAIR}`, passes: true };
  return kind(request, around);
}

function isDeferred({ context }: Surroundings): boolean {
  return (context.word('flags') & U.IORING_SETUP_DEFER_TASKRUN) !== 0;
}

/** Nobody knows whether there will be room at once. */
function sent(request: Request, around: Surroundings, kind: Kind): Entry | Problem {
  if (around.isConnection && !isDeferred(around)) return { problem: IN_REPAIR, passes: true };
  return kind(request, around);
}

/** There is no waiting first with them. */
function ofFiles(request: Request, around: Surroundings, kind: Kind): Entry | Problem {
  if (around.isConnection) return { problem: IN_REPAIR, passes: true };
  return kind(request, around);
}

/** Of both directions; internal flags are above those that a program may give (io_uring/net.c enum sr_retry_flags). */
function receive({ kiocb }: Request): Entry | Problem {
  const own = kiocb.inside('cmd', 'io_sr_msg');
  if (own.word('done_io') !== 0) return PARTLY;
  const ioprio = own.half('flags');
  if ((ioprio & ~U.IORING_RECVSEND_POLL_FIRST) !== 0)
    return { problem: `it was submitted with flags 0x${ioprio.toString(16)}`, passes: false };
  return {
    address: own.pointer('buf'),
    length: own.word('len'),
    opFlags: own.word('msg_flags'),
    ioprio: U.IORING_RECVSEND_POLL_FIRST,
  };
}

function headerOf({ kiocb }: Request): Structure {
  return new Structure(kiocb.memory, 'io_async_msghdr', kiocb.pointer('async_data'));
}

function message(request: Request, { pid }: Surroundings): Entry | Problem {
  const entry = receive(request);
  if ('problem' in entry) return entry;
  const header = headerOf(request);
  return sameMessage(pid, entry.address ?? 0n, header, header.pointer('uaddr')) ? entry : CHANGED;
}

const NAMED: Problem = { problem: 'it is sent to an address', passes: true };

function send(request: Request): Entry | Problem {
  return headerOf(request).pointer('msg.msg_name') === 0n ? receive(request) : NAMED;
}

function sendMessage(request: Request, { pid }: Surroundings): Entry | Problem {
  const entry = send(request);
  if ('problem' in entry) return entry;
  return sameMessage(pid, entry.address ?? 0n, headerOf(request), 0n) ? entry : CHANGED;
}

/* ---------- reads and writes ---------- */

function transfer(request: Request): Entry | Problem {
  const { kiocb, flags } = request;
  const own = kiocb.inside('cmd', 'io_rw');
  const data = kiocb.pointer('async_data');
  if (data !== 0n && new Structure(kiocb.memory, 'io_async_rw', data).pointer('bytes_done') !== 0n)
    return PARTLY;
  const isAtPosition = (flags & (1n << BigInt(kiocb.memory.types.value('REQ_F_CUR_POS_BIT')))) !== 0n;
  return {
    address: own.pointer('addr'),
    length: own.word('len'),
    opFlags: own.word('flags'),
    offset: isAtPosition ? 0xffff_ffff_ffff_ffffn : own.pointer('kiocb.ki_pos'),
    bufIndex: kiocb.half('buf_index'),
  };
}

/** READ of a connection is RECV, which can wait first. */
function read(request: Request, { isConnection }: Surroundings): Entry | Problem {
  const entry = transfer(request);
  if (!isConnection || 'problem' in entry) return entry;
  if (entry.opFlags !== 0) return { problem: IN_REPAIR, passes: true };
  const { address = 0n, length = 0 } = entry;
  return { opcode: U.IORING_OP_RECV, address, length, ioprio: U.IORING_RECVSEND_POLL_FIRST };
}

function vectors(request: Request, { pid }: Surroundings): Entry | Problem {
  const entry = transfer(request);
  if ('problem' in entry) return entry;
  const { kiocb } = request;
  const data = new Structure(kiocb.memory, 'io_async_rw', kiocb.pointer('async_data'));
  const given = { address: entry.address ?? 0n, count: entry.length ?? 0 };
  return sameVectors(pid, given, data.inside('iter', 'iov_iter')) ? entry : CHANGED;
}
