import { create } from '@bufbuild/protobuf';
import { rseq_entrySchema } from '../../image/schema/index.js';
import type * as ptrace from '../../kernel/ptrace.js';
import type { Registers } from '../../kernel/registers.js';
import { readRemote, readRemotes } from '../../kernel/remote.js';
import type { TaskState } from '../contract.js';
import { threadCore } from './core.js';

/**
 * Restartable sequences: the area a thread registered with rseq(2), PTRACE_GET_RSEQ_CONFIGURATION. While a thread is
 * inside a critical section, the kernel sends it to the abort handler whenever it was preempted (kernel/rseq.c
 * rseq_ip_fixup). Being stopped is being preempted; but a tape that plays meanwhile makes the kernel forget that the
 * thread was inside, so the thread has to be sent there before.
 */

/** struct rseq: cpu_id_start, cpu_id, then the pointer to the critical section's description. */
const RSEQ_CS_POINTER = 8n;
/** struct rseq_cs: version, flags, start_ip, post_commit_offset, abort_ip. */
const RSEQ_CS_SIZE = 32;
const SIGNATURE_SIZE = 4n;

export interface CriticalSection {
  readonly version: number;
  /** RSEQ_CS_FLAG_NO_RESTART_ON_*, which no kernel since 5.19 takes. */
  readonly flags: number;
  readonly start: bigint;
  readonly length: bigint;
  readonly abort: bigint;
}

export function decodeCriticalSection(bytes: Uint8Array): CriticalSection {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    version: view.getUint32(0, true),
    flags: view.getUint32(4, true),
    start: view.getBigUint64(8, true),
    length: view.getBigUint64(16, true),
    abort: view.getBigUint64(24, true),
  };
}

export function isInside(section: CriticalSection, ip: bigint): boolean {
  return ip >= section.start && ip - section.start < section.length;
}

/**
 * The registers of a frozen thread outside any critical section: at the abort handler where it was inside one. To be
 * used for the thaw and for the image. What the kernel would answer with SIGSEGV is left for it to find.
 */
export function outsideCriticalSection(
  tid: number,
  registers: Registers,
  rseq: ptrace.RseqConfiguration | undefined,
): Registers {
  if (rseq === undefined) return registers;
  const section = readSection(tid, rseq.address);
  if (section === undefined || section.version !== 0 || section.flags !== 0) return registers;
  if (!isInside(section, registers.ip) || isInside(section, section.abort)) return registers;
  const signature = read(tid, section.abort - SIGNATURE_SIZE, Number(SIGNATURE_SIZE));
  if (signature === undefined) return registers;
  if (new DataView(signature.buffer, signature.byteOffset).getUint32(0, true) !== rseq.signature)
    return registers;
  return { ...registers, ip: section.abort };
}

/** Of each of these, may it be inside a critical section? Most have none, and are asked all at once. */
export function mayBeInside(
  threads: readonly { readonly tid: number; readonly rseq: ptrace.RseqConfiguration | undefined }[],
): boolean[] {
  const pieces = threads.map(({ tid, rseq }) => ({
    pid: tid,
    address: (rseq?.address ?? 0n) + RSEQ_CS_POINTER,
    length: 8,
  }));
  return readRemotes(pieces).map(
    (pointer, index) =>
      threads[index]?.rseq !== undefined && (pointer === undefined || pointer.some(Boolean)),
  );
}

function readSection(tid: number, area: bigint): CriticalSection | undefined {
  const pointer = read(tid, area + RSEQ_CS_POINTER, 8);
  if (pointer === undefined) return undefined;
  const address = new DataView(pointer.buffer, pointer.byteOffset).getBigUint64(0, true);
  if (address === 0n) return undefined;
  const bytes = read(tid, address, RSEQ_CS_SIZE);
  return bytes === undefined ? undefined : decodeCriticalSection(bytes);
}

/** The thread's memory; undefined where nothing is mapped, as a pointer that is stale may well be. */
function read(tid: number, address: bigint, length: number): Uint8Array | undefined {
  try {
    return readRemote(tid, address, length);
  } catch {
    return undefined;
  }
}

export const restartableSequences: TaskState = {
  name: 'restartable sequences',
  scope: 'thread',
  support: 'the registration; a thread inside a critical section continues at its abort handler',

  note({ core, frozen }) {
    const rseq = frozen?.rseq;
    if (rseq === undefined) return;
    threadCore(core).rseqEntry = create(rseq_entrySchema, {
      rseqAbiPointer: rseq.address,
      rseqAbiSize: rseq.size,
      signature: rseq.signature,
    });
  },

  restore(task, tape) {
    const entry = threadCore(task.core).rseqEntry;
    if (entry === undefined || entry.rseqAbiPointer === 0n) return;
    tape.call('rseq', [entry.rseqAbiPointer, entry.rseqAbiSize, 0, entry.signature], 0);
  },
};
