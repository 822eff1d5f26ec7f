import { SyscallError } from './errors.js';
import { addressOf } from './ffi.js';
import { NativeMemory, zeroed } from './memory.js';
import { attempt } from './syscall.js';
import { askAll, gathering } from './together.js';

/** Two struct iovec: of the other process, and of this one. */
const vectors = new NativeMemory(32);

function transfer(
  name: 'process_vm_readv' | 'process_vm_writev',
  pid: number,
  address: bigint,
  local: bigint,
  length: number,
): void {
  vectors.view.setBigUint64(0, address, true);
  vectors.view.setBigUint64(8, BigInt(length), true);
  vectors.view.setBigUint64(16, local, true);
  vectors.view.setBigUint64(24, BigInt(length), true);
  const result = attempt(name, [pid, vectors.address + 16n, 1, vectors.address, 1, 0]);
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
  transfer('process_vm_readv', pid, address, addressOf(bytes), length);
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
  transfer('process_vm_writev', pid, address, addressOf(source), bytes.length);
}

function padded(bytes: Uint8Array): Uint8Array {
  const copy = zeroed(bytes.length);
  copy.set(bytes);
  return copy;
}

/** As readRemote, of many pieces; undefined for one that cannot be read. */
export function readRemotes(
  pieces: readonly { readonly pid: number; readonly address: bigint; readonly length: number }[],
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
