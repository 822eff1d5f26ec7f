import * as B from '../../abi/bpf.js';
import type { OwnedFd } from '../fd.js';
import { KernelTypes } from './btf.js';
import { KernelMemoryError } from './error.js';
import { beginIterator, loadIterator, runIterator } from './iterator.js';
import { Program } from './program.js';

/**
 * Members of the kernel's struct task_struct, of all threads of a process at once: a few microseconds a thread, without
 * a stop. Needs Linux 6.1, its BTF, CAP_BPF and CAP_PERFMON, and no lockdown.
 */

/** A task has one id in each pid namespace it is seen in; of these the first so many are looked at. */
const LEVELS = 8;
const UPID_SIZE = 16;
const LEVEL_AT = 0;
const IDS_AT = 8;
const VALUES_AT = IDS_AT + LEVELS * UPID_SIZE;
/** What a program has of stack. */
const STACK_MAX = 512;

export class TaskMembers implements Disposable {
  readonly #program: OwnedFd;
  readonly #size: number;
  /** Of this process's own pid namespace. */
  readonly #level: number;

  /** By their paths: numbers and addresses. Throws where the kernel has no such member, or must not show it. */
  constructor(members: readonly string[]) {
    this.#size = VALUES_AT + members.length * 8;
    if (this.#size + 8 > STACK_MAX) throw new KernelMemoryError(`${members.length} members are too many`);
    const types = KernelTypes.ofKernel();
    this.#program = loadIterator(types, instructions(types, members, this.#size));
    try {
      this.#level = this.#ownLevel();
    } catch (error) {
      this.#program[Symbol.dispose]();
      throw error;
    }
  }

  #ownLevel(): number {
    const level = runIterator(this.#program.fd, { tid: process.pid }).readUInt32LE(LEVEL_AT);
    if (level >= LEVELS) throw new KernelMemoryError(`this is a pid namespace of level ${level}`);
    return level;
  }

  /** The values of the members, in their order, by the thread's id. */
  read(pid: number): Map<number, readonly bigint[]> {
    const answer = runIterator(this.#program.fd, { pid });
    const threads = new Map<number, readonly bigint[]>();
    for (let at = 0; at + this.#size <= answer.length; at += this.#size) {
      const tid = answer.readUInt32LE(at + IDS_AT + this.#level * UPID_SIZE);
      const values: bigint[] = [];
      for (let value = VALUES_AT; value < this.#size; value += 8)
        values.push(answer.readBigUInt64LE(at + value));
      threads.set(tid, values);
    }
    return threads;
  }

  [Symbol.dispose](): void {
    this.#program[Symbol.dispose]();
  }
}

/** The record lies at the end of the stack; below it is a word for the address of the task's struct pid. */
function instructions(types: KernelTypes, members: readonly string[], size: number): Program {
  const program = new Program();
  const write = beginIterator(program, types);
  const record = -size;
  const pointer = record - 8;
  /** From the address in a register. */
  const read = (to: number, length: number, from: number, offset: number) => {
    program.move(1, 10);
    program.add(1, to);
    program.set(2, length);
    program.move(3, from);
    program.add(3, offset);
    program.call(B.BPF_FUNC_probe_read_kernel);
  };
  program.set(9, 0);
  for (let at = pointer; at < 0; at += 8) program.store(10, at, 9);
  read(pointer, 8, 7, types.offset('task_struct', 'thread_pid'));
  program.load(6, 10, pointer);
  read(record + LEVEL_AT, 4, 6, types.offset('pid', 'level'));
  read(record + IDS_AT, LEVELS * UPID_SIZE, 6, types.offset('pid', 'numbers'));
  members.forEach((member, index) => {
    const width = types.width('task_struct', member);
    read(record + VALUES_AT + index * 8, width, 7, types.offset('task_struct', member));
  });
  write(record, size);
  program.place('end');
  program.set(0, 0);
  program.exit();
  return program;
}
