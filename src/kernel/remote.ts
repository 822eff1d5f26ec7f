import { SyscallError } from './errors.js';
import { addressOf } from './ffi.js';
import { NativeMemory, zeroed } from './memory.js';
import { attempt } from './syscall.js';
import { askAll, gathering } from './together.js';

/** A piece of another process's memory: `address` there, `length` in bytes. */
export interface RemoteRange {
  readonly address: bigint;
  readonly length: number;
}

/** The kernel takes at most UIO_MAXIOV pieces a call. */
export const IOV_MAX = 1024;

const vectors = new NativeMemory((IOV_MAX + 1) * 16);
const LOCAL_VECTOR = vectors.address + BigInt(IOV_MAX * 16);

function transfer(
  name: 'process_vm_readv' | 'process_vm_writev',
  pid: number,
  local: bigint,
  length: number,
  ranges: readonly RemoteRange[],
): number {
  ranges.forEach((range, index) => {
    vectors.view.setBigUint64(index * 16, range.address, true);
    vectors.view.setBigUint64(index * 16 + 8, BigInt(range.length), true);
  });
  vectors.view.setBigUint64(IOV_MAX * 16, local, true);
  vectors.view.setBigUint64(IOV_MAX * 16 + 8, BigInt(length), true);
  return attempt(name, [pid, LOCAL_VECTOR, 1, vectors.address, ranges.length, 0]);
}

function whole(result: number, length: number, name: string, pid: number, address: bigint): void {
  if (result < 0) throw new SyscallError(name, -result, `pid ${pid}, address 0x${address.toString(16)}`);
  if (result !== length)
    throw new Error(
      `${name} (pid ${pid}): ${result} of ${length} bytes at 0x${address.toString(16)}; the rest is not mapped or not readable`,
    );
}

/** Read `length` bytes at `address` of process `pid` (process_vm_readv(2)); all or an error. */
export function readRemote(pid: number, address: bigint, length: number): Uint8Array {
  const bytes = zeroed(length);
  if (length === 0) return bytes;
  const result = transfer('process_vm_readv', pid, addressOf(bytes), length, [{ address, length }]);
  whole(result, length, 'process_vm_readv', pid, address);
  return bytes;
}

/** Write `bytes` at `address` of process `pid` (process_vm_writev(2)); all or an error. */
export function writeRemote(pid: number, address: bigint, bytes: Uint8Array): void {
  if (bytes.length === 0) return;
  const gathered = gathering();
  if (gathered !== undefined) {
    const { length } = bytes;
    const local = gathered.vector(gathered.copy(bytes), length);
    const remote = gathered.vector(Number(address), length);
    gathered.add('process_vm_writev', 'process_vm_writev', pid, length, [pid, local, 1, remote, 1, 0]);
    return;
  }
  const source = bytes.buffer.byteLength >= 64 ? bytes : padded(bytes);
  const result = transfer('process_vm_writev', pid, addressOf(source), bytes.length, [
    { address, length: bytes.length },
  ]);
  whole(result, bytes.length, 'process_vm_writev', pid, address);
}

function padded(bytes: Uint8Array): Uint8Array {
  const copy = zeroed(bytes.length);
  copy.set(bytes);
  return copy;
}

/**
 * Read scattered ranges (at most IOV_MAX) of process `pid` one after the other into `local`.
 * Answers the bytes read, which is less than asked where a page cannot be read, or −errno.
 */
export function gatherRemote(pid: number, local: bigint, ranges: readonly RemoteRange[]): number {
  const length = ranges.reduce((sum, range) => sum + range.length, 0);
  return transfer('process_vm_readv', pid, local, length, ranges);
}

/** As readRemote, of many pieces; undefined for one that cannot be read. */
export function readRemotes(
  pieces: readonly (RemoteRange & { readonly pid: number })[],
): (Uint8Array | undefined)[] {
  const sizes = pieces.map(({ length }) => Math.ceil(length / 64) * 64);
  const all = new Uint8Array(sizes.reduce((sum, size) => sum + size, 64));
  const address = Number(addressOf(all));
  let end = 0;
  const starts = sizes.map((size) => {
    end += size;
    return end - size;
  });
  const places = pieces.map((piece, index) => ({ ...piece, start: starts[index] ?? 0 }));
  return askAll(
    places,
    32,
    (ask, piece, at, bytes) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset, 32);
      view.setBigUint64(0, BigInt(address + piece.start), true);
      view.setBigUint64(8, BigInt(piece.length), true);
      view.setBigUint64(16, piece.address, true);
      view.setBigUint64(24, BigInt(piece.length), true);
      ask('process_vm_readv', piece.pid, at, 1, at + 16, 1, 0);
    },
    ({ results: [result = 0] }, { start, length }) =>
      result === length ? all.subarray(start, start + length) : undefined,
  );
}
