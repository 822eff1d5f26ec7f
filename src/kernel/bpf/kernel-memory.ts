import * as B from '../../abi/bpf.js';
import { MAP_SHARED, PAGE_SIZE, PROT_READ, PROT_WRITE } from '../../abi/mman.js';
import { OwnedFd } from '../fd.js';
import { viewOf } from '../ffi.js';
import { scratch } from '../memory.js';
import { syscall } from '../syscall.js';
import { words } from '../words.js';
import { KernelTypes } from './btf.js';
import { KernelMemoryError } from './error.js';
import { beginIterator, loadIterator, runIterator } from './iterator.js';
import { Program } from './program.js';

/**
 * The kernel's own memory, read only: what it keeps of an object and shows nowhere. A BPF program that is run for one task
 * (an iterator, Documentation/bpf/bpf_iterators.rst) writes out what lies at the addresses it is given; an address at
 * which nothing is, is an error and harms nobody (bpf_probe_read_kernel). Needs Linux 6.9, its BTF, CAP_BPF and
 * CAP_PERFMON, and no lockdown.
 */
const CHUNK = 256;
/** As many as the kernel's buffer for one task has room for (kernel/bpf/bpf_iter.c: 8 pages). */
const CHUNKS_MAX = 64;
/** What comes back of a chunk: the answer of the read, then the bytes. */
const RECORD = 8 + CHUNK;
const RECORD_AT = -16 - RECORD;
const LIST_AT = CHUNKS_MAX * 8;

export class KernelMemory implements Disposable {
  readonly types: KernelTypes;
  readonly #map: OwnedFd;
  readonly #program: OwnedFd;
  /** Addresses of chunks, up to one that is 0, and behind them that of a list. */
  readonly #questions: DataView;
  readonly #mapped: bigint;

  /** Throws where the kernel cannot do it, or must not. */
  constructor() {
    this.types = KernelTypes.ofKernel();
    this.#map = createMap();
    try {
      this.#program = loadIterator(this.types, instructions(this.types, this.#map.fd));
      const protection = PROT_READ | PROT_WRITE;
      this.#mapped = BigInt(syscall('mmap', [0, PAGE_SIZE, protection, MAP_SHARED, this.#map.fd, 0]));
      this.#questions = new DataView(viewOf(this.#mapped, PAGE_SIZE));
    } catch (error) {
      this.#map[Symbol.dispose]();
      throw error;
    }
  }

  /** The address of a thread's task_struct. `tid` is as this process sees it. */
  task(tid: number): bigint {
    this.#ask([], 0n);
    const answer = this.#run(tid);
    if (answer.length < 8) throw new KernelMemoryError(`the kernel shows no task ${tid}`);
    return answer.readBigUInt64LE(0);
  }

  /** Throws where there is nothing. */
  read(address: bigint, length: number): Buffer {
    const [bytes = Buffer.alloc(0)] = this.readAll([address], length);
    return bytes;
  }

  /** What lies at each of the addresses; so many are read at once that it takes a fraction of the time. */
  readAll(addresses: readonly bigint[], length: number): Buffer[] {
    const mask = BigInt(CHUNK - 1);
    const chunksOf = (address: bigint) => {
      const first = address & ~mask;
      const count = Math.ceil((Number(address - first) + length) / CHUNK);
      return Array.from({ length: count }, (_, index) => first + BigInt(index * CHUNK));
    };
    const chunks = [...new Set(addresses.flatMap(chunksOf))];
    const found = new Map<bigint, Buffer>();
    for (let start = 0; start < chunks.length; start += CHUNKS_MAX) {
      const some = chunks.slice(start, start + CHUNKS_MAX);
      const bytes = this.#readChunks(some);
      some.forEach((chunk, index) => {
        found.set(chunk, bytes.subarray(index * CHUNK, (index + 1) * CHUNK));
      });
    }
    return addresses.map((address) => {
      const whole = Buffer.concat(chunksOf(address).map((chunk) => found.get(chunk) ?? Buffer.alloc(CHUNK)));
      const skipped = Number(address & mask);
      return whole.subarray(skipped, skipped + length);
    });
  }

  #readChunks(chunks: readonly bigint[]): Buffer {
    this.#ask(chunks, 0n);
    const answer = this.#run(process.pid);
    return Buffer.concat(
      chunks.map((chunk, index) => {
        const record = 8 + index * RECORD;
        // At address 0, which ends the questions, nothing is either.
        if (answer.length < record + RECORD || answer.readBigInt64LE(record) !== 0n)
          throw new KernelMemoryError(`nothing is to be read at 0x${chunk.toString(16)} in the kernel`);
        return answer.subarray(record + 8, record + RECORD);
      }),
    );
  }

  pointer(address: bigint): bigint {
    return this.read(address, 8).readBigUInt64LE(0);
  }

  /** How many elements a list has, each of which begins with the address of the next, 0 at the end; so does `head`. */
  listLength(head: bigint): number {
    this.#ask([], head);
    const answer = this.#run(process.pid);
    const count = answer.readBigInt64LE(8);
    if (count < 0n)
      throw new KernelMemoryError(`a list at 0x${head.toString(16)} in the kernel cannot be followed`);
    return Number(count);
  }

  /** The address of the open file behind a descriptor of a task, given the task's address. */
  file(task: bigint, fd: number): bigint {
    const { array, count } = this.#table(task);
    if (fd >= count) throw new KernelMemoryError(`a task has no descriptor ${fd}`);
    return this.pointer(array + BigInt(fd) * 8n);
  }

  /** As `file` for all its descriptors; 0 where it has none. */
  files(task: bigint): BigUint64Array {
    const { array, count } = this.#table(task);
    const bytes = this.read(array, count * 8);
    return BigUint64Array.from({ length: count }, (_, fd) => bytes.readBigUInt64LE(fd * 8));
  }

  #table(task: bigint): { array: bigint; count: number } {
    const files = this.pointer(this.member(task, 'task_struct', 'files'));
    const table = this.pointer(this.member(files, 'files_struct', 'fdt'));
    const array = this.pointer(this.member(table, 'fdtable', 'fd'));
    return { array, count: this.read(this.member(table, 'fdtable', 'max_fds'), 4).readUInt32LE(0) };
  }

  /** The address of a member of a structure. */
  member(address: bigint, name: string, path: string): bigint {
    return address + BigInt(this.types.offset(name, path));
  }

  #ask(chunks: readonly bigint[], list: bigint): void {
    chunks.forEach((address, index) => {
      this.#questions.setBigUint64(index * 8, address, true);
    });
    if (chunks.length < CHUNKS_MAX) this.#questions.setBigUint64(chunks.length * 8, 0n, true);
    this.#questions.setBigUint64(LIST_AT, list, true);
  }

  #run(tid: number): Buffer {
    return runIterator(this.#program.fd, { tid });
  }

  [Symbol.dispose](): void {
    syscall('munmap', [this.#mapped, PAGE_SIZE]);
    this.#program[Symbol.dispose]();
    this.#map[Symbol.dispose]();
  }
}

/** An array of one element, a page that this process and the program share. */
let shared: KernelMemory | undefined;

/** Opened when it is needed first, which a check before the freeze sees to, and kept. Throws as the constructor does. */
export function kernelMemory(): KernelMemory {
  shared ??= new KernelMemory();
  return shared;
}

function createMap(): OwnedFd {
  const { bytes, address } = scratch;
  bytes.fill(0, 0, B.BPF_MAP_CREATE_SIZE);
  bytes.set(words([B.BPF_MAP_TYPE_ARRAY, 4, PAGE_SIZE, 1, B.BPF_F_MMAPABLE]));
  return new OwnedFd(syscall('bpf', [B.BPF_MAP_CREATE, address, B.BPF_MAP_CREATE_SIZE]));
}

/** Registers: 10 is the end of the stack, 6 to 9 outlive calls, 1 to 5 are arguments. */
function instructions(types: KernelTypes, map: number): Program {
  const program = new Program();
  const write = beginIterator(program, types);
  program.store(10, -8, 7);
  write(-8, 8);
  program.mapValue(9, map);
  for (let chunk = 0; chunk < CHUNKS_MAX; chunk++) {
    program.load(3, 9, chunk * 8);
    program.jump('equal', 'list', 3, 0);
    program.move(1, 10);
    program.add(1, RECORD_AT + 8);
    program.set(2, CHUNK);
    program.call(B.BPF_FUNC_probe_read_kernel);
    program.store(10, RECORD_AT, 0);
    write(RECORD_AT, RECORD);
  }
  program.place('list');
  program.load(7, 9, LIST_AT);
  program.jump('equal', 'end', 7, 0);
  program.set(6, 0);
  const next = program.length;
  program.jump('tired', 'counted');
  program.move(1, 10);
  program.add(1, -8);
  program.set(2, 8);
  program.move(3, 7);
  program.call(B.BPF_FUNC_probe_read_kernel);
  program.jump('differs', 'lost', 0, 0);
  program.load(7, 10, -8);
  program.jump('equal', 'counted', 7, 0);
  program.add(6, 1);
  program.back(next);
  program.place('lost');
  program.set(6, -1);
  program.place('counted');
  program.store(10, -8, 6);
  write(-8, 8);
  program.place('end');
  program.set(0, 0);
  program.exit();
  return program;
}
