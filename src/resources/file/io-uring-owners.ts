import { kernelMemory } from '../../kernel/bpf/kernel-memory.js';
import type { Descriptor, Process } from '../contract.js';
import { changedBuffer } from './io-uring-buffers.js';
import { type Ring, registeredRings } from './io-uring-state.js';

/**
 * What rings have to do with open files and tasks of the tree, as addresses in the kernel say: files and eventfds that are
 * registered with them, the one task that may submit, the process whose memory registered buffers are, and the numbers
 * that threads know rings by.
 */
interface Open {
  readonly descriptor: Descriptor;
}

/** All that the tree has open, by where it lies in the kernel. */
export class OpenFiles<T extends Open> {
  readonly processes: readonly Process[];
  readonly #byAddress = new Map<bigint, T[]>();
  /** Addresses of descriptor tables, by pid. */
  readonly #tables = new Map<number, bigint>();

  constructor(all: readonly T[]) {
    const memory = kernelMemory();
    const files = new Map<number, BigUint64Array>();
    for (const each of all) {
      const { process, fd, info } = each.descriptor;
      const task = files.has(process.pid) ? 0n : memory.task(process.pid);
      const table = files.get(process.pid) ?? memory.files(task);
      files.set(process.pid, table);
      if (task !== 0n)
        this.#tables.set(process.pid, memory.pointer(memory.member(task, 'task_struct', 'files')));
      const file = table[fd] ?? 0n;
      if (file === 0n) continue;
      this.#add(file, each);
      // Rings have the counter of an eventfd instead of its file.
      if (info.link === 'anon_inode:[eventfd]')
        this.#add(memory.pointer(memory.member(file, 'file', 'private_data')), each);
    }
    this.processes = [...new Set(all.map(({ descriptor }) => descriptor.process))];
  }

  #add(address: bigint, each: T): void {
    const others = this.#byAddress.get(address);
    if (others === undefined) this.#byAddress.set(address, [each]);
    else others.push(each);
  }

  at(address: bigint): T | undefined {
    return this.#byAddress.get(address)?.[0];
  }

  has(process: Process, address: bigint): boolean {
    return (this.#byAddress.get(address) ?? []).some(({ descriptor }) => descriptor.process === process);
  }

  /** A descriptor of a process; undefined where it has none of that file. */
  numberIn(process: Process, address: bigint): number | undefined {
    const own = (this.#byAddress.get(address) ?? []).find(
      ({ descriptor }) =>
        descriptor.process === process && descriptor.fd >= 0 && descriptor.isInFlight !== true,
    );
    return own?.descriptor.fd;
  }

  sharesTable(process: Process): boolean {
    const own = this.#tables.get(process.pid);
    return this.processes.some((other) => other !== process && this.#tables.get(other.pid) === own);
  }
}

/** Which processes of the tree a ring needs, by their ids in it. */
export interface Owners {
  readonly submitter?: number;
  readonly buffersOf?: number;
}

/** Why a ring cannot be saved, or who it belongs to. */
export function ownersOf<T extends Open>(ring: Ring, open: OpenFiles<T>): Owners | { problem: string } {
  const { files, eventfd } = ring;
  const index = files.findIndex((file) => file !== 0n && open.at(file) === undefined);
  if (index >= 0) return { problem: `registered file ${index} is open in no process of the tree` };
  if (eventfd !== undefined && open.at(eventfd.context) === undefined)
    return { problem: 'the eventfd that is registered with it is open in no process of the tree' };
  const submitter = open.processes.find(({ pid }) => kernelMemory().task(pid) === ring.submitter);
  if (ring.submitter !== 0n) {
    const problem = submitterProblem(ring, submitter, open);
    if (problem !== undefined) return { problem };
  }
  const keeper = ring.buffers.length === 0 ? undefined : keeperOf(ring, open);
  if (typeof keeper === 'string') return { problem: keeper };
  if (keeper !== undefined && ring.submitter !== 0n && keeper !== submitter)
    return { problem: 'its buffers are memory of another process than the one that may submit to it' };
  return {
    ...(submitter === undefined ? {} : { submitter: submitter.insidePid }),
    ...(keeper === undefined ? {} : { buffersOf: keeper.insidePid }),
  };
}

function submitterProblem<T extends Open>(
  ring: Ring,
  submitter: Process | undefined,
  open: OpenFiles<T>,
): string | undefined {
  if (submitter === undefined)
    return 'the one thread that may submit to it (IORING_SETUP_SINGLE_ISSUER) has ended, or is not the first of a process';
  if (!open.has(submitter, ring.file)) return 'the one process that may submit to it has closed it';
  if (ring.eventfd !== undefined && !open.has(submitter, ring.eventfd.context))
    return 'the one process that may submit to it has closed the eventfd that is registered with it';
  if (open.sharesTable(submitter))
    return 'the one process that may submit to it shares its descriptors with another';
  return undefined;
}

/** The process whose memory its buffers are, or why they cannot be registered again. */
function keeperOf<T extends Open>(ring: Ring, open: OpenFiles<T>): Process | string {
  const holders = open.processes.filter((process) => open.has(process, ring.file));
  const problems = holders.map(({ pid }) => changedBuffer(ring.buffers, ring.memory, pid));
  const keeper = holders[problems.indexOf(undefined)];
  if (keeper === undefined) return problems[0] ?? 'nobody of the tree has it open';
  if (open.sharesTable(keeper))
    return 'buffers are registered with it, and the process whose memory they are shares its descriptors';
  return keeper;
}

/** Numbers that the first thread of a process knows rings by (IORING_REGISTER_RING_FDS). */
export interface RingNumber {
  readonly number: number;
  /** Address of the ring's file. */
  readonly file: bigint;
}

/** Those of a process; a text says why they cannot be given back. */
export function ringNumbers<T extends Open>(process: Process, open: OpenFiles<T>): RingNumber[] | string {
  for (const { tid, insideTid, isLeader } of process.threads)
    if (!isLeader && registeredRings(tid).some((file) => file !== 0n))
      return `thread ${insideTid}, which is not the first, knows rings by numbers of its own (io_uring_register_ring_fd(3))`;
  const numbers = registeredRings(process.pid).flatMap((file, number) =>
    file === 0n ? [] : [{ file, number }],
  );
  if (numbers.some(({ file }) => !open.has(process, file)))
    return 'a ring that it knows by a number of its own (io_uring_register_ring_fd(3)) has no descriptor any more';
  if (numbers.length > 0 && open.sharesTable(process))
    return 'it knows rings by numbers of its own (io_uring_register_ring_fd(3)), and shares its descriptors';
  return numbers;
}
