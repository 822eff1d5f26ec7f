import type { Structure } from '../../kernel/bpf/structure.js';
import { readRemote } from '../../kernel/remote.js';

/**
 * Vectors and message headers, of which the kernel has a copy since they were submitted; the program's own need not have
 * outlived that (IORING_FEAT_SUBMIT_STABLE), but do with most. Submitted again they must be the same.
 */
export interface Vectors {
  readonly address: bigint;
  readonly count: number;
}

const VECTOR = 16;
/** UIO_MAXIOV */
const COUNT_MAX = 1024;

/** `iterator` is the kernel's struct iov_iter, of which nothing has been consumed. */
export function sameVectors(pid: number, { address, count }: Vectors, iterator: Structure): boolean {
  if (count === 0 || count > COUNT_MAX) return false;
  const own = kernelVectors(iterator);
  if (own === undefined || own.length !== count * VECTOR) return false;
  return readIfThere(pid, address, own.length)?.equals(own) === true;
}

function kernelVectors(iterator: Structure): Buffer | undefined {
  const { memory } = iterator;
  if (iterator.pointer('iov_offset') !== 0n) return undefined;
  const type = iterator.byte('iter_type');
  if (type === memory.types.value('ITER_UBUF')) {
    const bytes = Buffer.alloc(VECTOR);
    bytes.writeBigUInt64LE(iterator.pointer('ubuf'), 0);
    bytes.writeBigUInt64LE(iterator.pointer('count'), 8);
    return bytes;
  }
  if (type !== memory.types.value('ITER_IOVEC')) return undefined;
  return memory.read(iterator.pointer('__iov'), Number(iterator.pointer('nr_segs')) * VECTOR);
}

/** struct user_msghdr: what an operation is given. */
const HEADER = { size: 56, name: 0, vectors: 16, count: 24, control: 32 } as const;

/**
 * `header` is the kernel's struct io_async_msghdr, and `name` where it is to write an address to. What it writes there
 * itself, lengths and flags, is not compared.
 */
export function sameMessage(pid: number, address: bigint, header: Structure, name: bigint): boolean {
  const own = readIfThere(pid, address, HEADER.size);
  if (own === undefined) return false;
  if (own.readBigUInt64LE(HEADER.name) !== name) return false;
  if (own.readBigUInt64LE(HEADER.control) !== header.pointer('msg.msg_control_user')) return false;
  const count = Number(own.readBigUInt64LE(HEADER.count));
  const vectors = { address: own.readBigUInt64LE(HEADER.vectors), count };
  return sameVectors(pid, vectors, header.inside('msg.msg_iter', 'iov_iter'));
}

/** The program may have unmapped it since. */
function readIfThere(pid: number, address: bigint, length: number): Buffer | undefined {
  try {
    return Buffer.from(readRemote(pid, address, length));
  } catch {
    return undefined;
  }
}
