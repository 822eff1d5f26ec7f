import * as U from '../../abi/io-uring.js';
import { isRecord } from '../../image/json.js';
import { KINDS, TIME_MAX } from './io-uring-request-kinds.js';

/** Operations that were on their way, in stasis-uring.json: what submits them again. */
export interface SavedRequest {
  /** struct io_uring_sqe; the address of a timeout's time is not known before it is submitted. */
  readonly sqe: Uint8Array;
  /** Nanoseconds, of a timeout. */
  readonly time?: bigint;
}

/** Who submits them: a thread, by its id in the image, and its descriptor of the ring. */
export interface Issuer {
  readonly tid: number;
  readonly fd: number;
}

export interface SavedRequests {
  readonly issuer?: Issuer;
  readonly requests: readonly SavedRequest[];
}

export const REQUESTS_MAX = 1 << 15;
const LINKED = U.IOSQE_IO_LINK | U.IOSQE_IO_HARDLINK;
const FLAGS = U.IOSQE_FIXED_FILE | LINKED | U.IOSQE_ASYNC | U.IOSQE_CQE_SKIP_SUCCESS;
const ID_MAX = 1 << 30;

export function flagsOf({ sqe }: SavedRequest): number {
  return sqe[U.SQE.flags] ?? 0;
}

export function isLinked(request: SavedRequest): boolean {
  return (flagsOf(request) & LINKED) !== 0;
}

export function isTimed({ sqe }: SavedRequest): boolean {
  return sqe[U.SQE.opcode] === U.IORING_OP_TIMEOUT || sqe[U.SQE.opcode] === U.IORING_OP_LINK_TIMEOUT;
}

export function encodeRequests(requests: readonly SavedRequest[]): unknown[] {
  return requests.map(({ sqe, time }) => {
    const text = Buffer.from(sqe).toString('hex');
    return time === undefined ? { sqe: text } : { sqe: text, time: time.toString() };
  });
}

/** Of a ring whose image is `item`; one of before there were any has none. */
export function decodeRequests(item: Readonly<Record<string, unknown>>): SavedRequests {
  if (item.requests === undefined) return { requests: [] };
  if (!Array.isArray(item.requests) || item.requests.length > REQUESTS_MAX)
    throw new Error('has a ring whose operations are no list, or too many');
  const requests = item.requests.map(decodeRequest);
  if (requests.length === 0) return { requests };
  requests.forEach((request, index) => {
    const previous = requests[index - 1];
    const isTail = request.sqe[U.SQE.opcode] === U.IORING_OP_LINK_TIMEOUT;
    if ((previous !== undefined && isLinked(previous)) !== isTail)
      throw new Error('has a ring with a linked operation that is not followed by its timeout alone');
  });
  if (requests.some((request, index) => isLinked(request) && requests[index + 1] === undefined))
    throw new Error('has a ring with a linked operation at the end');
  return { requests, issuer: decodeIssuer(item.issuer) };
}

function decodeIssuer(value: unknown): Issuer {
  const { tid, fd } = isRecord(value) ? value : {};
  return { tid: id(tid, 'thread'), fd: id(fd, 'descriptor') };
}

function id(value: unknown, name: string): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > ID_MAX)
    throw new Error(`has a ring with operations of ${name} ${JSON.stringify(value)}`);
  return value;
}

function decodeRequest(item: unknown): SavedRequest {
  const { sqe: text, time: given } = isRecord(item) ? item : {};
  if (typeof text !== 'string' || text.length !== 2 * U.SQE.size || !/^[0-9a-f]*$/.test(text))
    throw new Error('has a ring with an operation that is none');
  const sqe = Uint8Array.from(Buffer.from(text, 'hex'));
  const view = new DataView(sqe.buffer);
  const opcode = view.getUint8(U.SQE.opcode);
  const flags = view.getUint8(U.SQE.flags);
  if (!KINDS.has(opcode)) throw new Error(`has a ring with an operation ${opcode}`);
  if ((flags & ~FLAGS) !== 0) throw new Error(`has a ring with an operation of flags ${flags}`);
  if (view.getUint16(U.SQE.personality, true) !== 0)
    throw new Error('has a ring with an operation of a personality');
  const request = { sqe };
  if (isTimed(request) !== (given !== undefined))
    throw new Error('has a ring with a timeout without time, or a time without timeout');
  return given === undefined ? request : { sqe, time: decodeTime(given) };
}

function decodeTime(value: unknown): bigint {
  if (typeof value !== 'string' || !/^[0-9]{1,19}$/.test(value) || BigInt(value) > TIME_MAX)
    throw new Error(`has a ring with a timeout of ${JSON.stringify(value)}`);
  return BigInt(value);
}
