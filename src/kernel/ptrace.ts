import * as P from '../abi/ptrace.js';
import { SyscallError } from './errors.js';
import { NativeMemory, zeroed } from './memory.js';
import { decodeRegisters, encodeRegisters, REGISTERS_SIZE, type Registers } from './registers.js';
import { attempt } from './syscall.js';
import { askAll, gathering } from './together.js';

/**
 * ptrace(2), one function a request. All act on a task (`tid`) that this OS thread traces; every function but
 * `seize` and `interrupt` wants it in a ptrace stop (ESRCH otherwise).
 */

/** Room for one register set: NT_X86_XSTATE with AMX tiles is 11 KiB. */
const XSTATE_MAX = 64 * 1024;
const memory = new NativeMemory(XSTATE_MAX + 4096);
const IOVEC = XSTATE_MAX;

function ptrace(request: number, tid: number, address: number | bigint, data: number | bigint, name: string) {
  if (gathering() !== undefined) throw new Error(`ptrace(${name}) cannot be gathered`);
  const result = attempt('ptrace', [request, tid, address, data]);
  if (result < 0) throw new SyscallError(`ptrace(${name})`, -result, `task ${tid}`);
  return result;
}

/** As `ptrace`, of a call that only changes something: it may be gathered (together.ts). */
function change(request: number, tid: number, address: number, data: number, name: string): void {
  const gathered = gathering();
  if (gathered === undefined) ptrace(request, tid, address, data, name);
  else gathered.add('ptrace', `ptrace(${name})`, tid, 0, [request, tid, address, data]);
}

/** Start tracing without stopping the task. */
export function seize(tid: number, options: number): void {
  change(P.PTRACE_SEIZE, tid, 0, options, 'PTRACE_SEIZE');
}

/** Make a seized task stop; the stop is then to be waited for. */
export function interrupt(tid: number): void {
  change(P.PTRACE_INTERRUPT, tid, 0, 0, 'PTRACE_INTERRUPT');
}

export function setOptions(tid: number, options: number): void {
  ptrace(P.PTRACE_SETOPTIONS, tid, 0, options, 'PTRACE_SETOPTIONS');
}

/** Let a stopped task go on, delivering `signal` (0 for none). */
export function resume(tid: number, signal = 0): void {
  change(P.PTRACE_CONT, tid, 0, signal, 'PTRACE_CONT');
}

/** As `resume`, to the next entry to or exit from a system call. */
export function resumeToSyscall(tid: number): void {
  change(P.PTRACE_SYSCALL, tid, 0, 0, 'PTRACE_SYSCALL');
}

/** Stop tracing; the task goes on, with `signal` delivered. */
export function detach(tid: number, signal = 0): void {
  change(P.PTRACE_DETACH, tid, 0, signal, 'PTRACE_DETACH');
}

function regset(request: number, tid: number, type: number, length: number, name: string): number {
  memory.view.setBigUint64(IOVEC, memory.address, true);
  memory.view.setBigUint64(IOVEC + 8, BigInt(length), true);
  ptrace(request, tid, type, memory.address + BigInt(IOVEC), name);
  return Number(memory.view.getBigUint64(IOVEC + 8, true));
}

export function getRegisters(tid: number): Registers {
  const length = regset(P.PTRACE_GETREGSET, tid, P.NT_PRSTATUS, REGISTERS_SIZE, 'PTRACE_GETREGSET');
  if (length !== REGISTERS_SIZE)
    throw new Error(`task ${tid} is not a 64-bit task (${length} bytes of registers)`);
  return decodeRegisters(memory.view);
}

/** What a thread's registers are changed from, again and again, while it is borrowed. */
const encoded = new WeakMap<Registers, Uint8Array>();

/**
 * Set all registers: `registers`, but for `changes`. The former are not changed by anybody later.
 * SAFETY: the caller answers for where the new `ip` leads and what it finds there.
 */
export function setRegisters(tid: number, registers: Registers, changes: Partial<Registers> = {}): void {
  const known = encoded.get(registers);
  if (known !== undefined) memory.bytes.set(known);
  else {
    encodeRegisters(registers, memory.view);
    encoded.set(registers, memory.bytes.slice(0, REGISTERS_SIZE));
  }
  encodeRegisters(changes, memory.view);
  const gathered = gathering();
  if (gathered === undefined)
    regset(P.PTRACE_SETREGSET, tid, P.NT_PRSTATUS, REGISTERS_SIZE, 'PTRACE_SETREGSET');
  else {
    const from = gathered.copy(memory.bytes.subarray(0, REGISTERS_SIZE));
    const vector = gathered.vector(from, REGISTERS_SIZE);
    change(P.PTRACE_SETREGSET, tid, P.NT_PRSTATUS, vector, 'PTRACE_SETREGSET');
  }
}

/** The whole xsave area, standard format; the XCR0 mask lies at offset 464 (sw_reserved). */
export function getXstate(tid: number): Uint8Array {
  const length = regset(P.PTRACE_GETREGSET, tid, P.NT_X86_XSTATE, XSTATE_MAX, 'PTRACE_GETREGSET xstate');
  const xstate = zeroed(length);
  xstate.set(memory.bytes.subarray(0, length));
  return xstate;
}

export function setXstate(tid: number, xstate: Uint8Array): void {
  memory.bytes.set(xstate);
  regset(P.PTRACE_SETREGSET, tid, P.NT_X86_XSTATE, xstate.length, 'PTRACE_SETREGSET xstate');
}

/** The blocked signals of a task, bit n−1 for signal n. */
export function getSignalMask(tid: number): bigint {
  ptrace(P.PTRACE_GETSIGMASK, tid, 8, memory.address, 'PTRACE_GETSIGMASK');
  return memory.view.getBigUint64(0, true);
}

export function setSignalMask(tid: number, mask: bigint): void {
  memory.view.setBigUint64(0, mask, true);
  const gathered = gathering();
  if (gathered === undefined) ptrace(P.PTRACE_SETSIGMASK, tid, 8, memory.address, 'PTRACE_SETSIGMASK');
  else change(P.PTRACE_SETSIGMASK, tid, 8, gathered.copy(memory.bytes.subarray(0, 8)), 'PTRACE_SETSIGMASK');
}

const PEEK_AT_ONCE = 32;

/** All queued signals, 128 bytes each, oldest first, without taking them off the queue. */
export function peekSignals(tid: number, shared: boolean): Uint8Array[] {
  const queue: Uint8Array[] = [];
  for (;;) {
    const view = memory.view;
    view.setBigUint64(IOVEC, BigInt(queue.length), true);
    view.setUint32(IOVEC + 8, shared ? P.PTRACE_PEEKSIGINFO_SHARED : 0, true);
    view.setInt32(IOVEC + 12, PEEK_AT_ONCE, true);
    const request = memory.address + BigInt(IOVEC);
    const count = ptrace(P.PTRACE_PEEKSIGINFO, tid, request, memory.address, 'PTRACE_PEEKSIGINFO');
    for (let i = 0; i < count; i++) queue.push(memory.bytes.slice(i * 128, (i + 1) * 128));
    if (count < PEEK_AT_ONCE) return queue;
  }
}

/** One filter of a task's seccomp chain, `index` 0 the newest; undefined past the end. 8 bytes an instruction. */
export function getSeccompFilter(tid: number, index: number): Uint8Array | undefined {
  const result = attempt('ptrace', [P.PTRACE_SECCOMP_GET_FILTER, tid, index, memory.address]);
  if (result === -2) return undefined;
  if (result < 0) throw new SyscallError('ptrace(PTRACE_SECCOMP_GET_FILTER)', -result, `task ${tid}`);
  return memory.bytes.slice(0, result * 8);
}

/** Flags of a filter: SECCOMP_FILTER_FLAG_LOG is the one the kernel gives back (PTRACE_SECCOMP_GET_METADATA). */
export function getSeccompFlags(tid: number, index: number): bigint {
  memory.view.setBigUint64(0, BigInt(index), true);
  ptrace(P.PTRACE_SECCOMP_GET_METADATA, tid, 16, memory.address, 'PTRACE_SECCOMP_GET_METADATA');
  return memory.view.getBigUint64(8, true);
}

export interface RseqConfiguration {
  readonly address: bigint;
  readonly size: number;
  readonly signature: number;
  readonly flags: number;
}

/** The task's registered rseq area; undefined when there is none, or the kernel has no rseq. */
export function getRseq(tid: number): RseqConfiguration | undefined {
  const result = attempt('ptrace', [P.PTRACE_GET_RSEQ_CONFIGURATION, tid, RSEQ_SIZE, memory.address]);
  return result < 0 ? undefined : decodeRseq(memory.view, 0);
}

function decodeRseq(view: DataView, at: number): RseqConfiguration | undefined {
  const address = view.getBigUint64(at, true);
  if (address === 0n) return undefined;
  return {
    address,
    size: view.getUint32(at + 8, true),
    signature: view.getUint32(at + 12, true),
    flags: view.getUint32(at + 16, true),
  };
}

/** What is read of every thread that has just stopped. */
export interface ThreadState {
  readonly registers: Registers;
  readonly mask: bigint;
  readonly xstate: Uint8Array;
  readonly rseq: RseqConfiguration | undefined;
}

/** Where it is put: two iovecs first, and the extended state last. */
const STATE = { registers: 64, mask: 280, rseq: 288, xstate: 320 } as const;
const RSEQ_SIZE = 24;
/** More than the extended states that were read so far. */
let xstateRoom = 16 * 1024;

/** As getRegisters, getSignalMask, getXstate and getRseq, of many threads; undefined for one that does not answer. */
export function getStates(tids: readonly number[]): (ThreadState | undefined)[] {
  const room = xstateRoom;
  return askAll(
    tids,
    STATE.xstate + room,
    (ask, tid, at, bytes) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset, STATE.registers);
      [at + STATE.registers, REGISTERS_SIZE, at + STATE.xstate, room].forEach((word, index) => {
        view.setBigUint64(index * 8, BigInt(word), true);
      });
      ask('ptrace', P.PTRACE_GETREGSET, tid, P.NT_PRSTATUS, at);
      ask('ptrace', P.PTRACE_GETREGSET, tid, P.NT_X86_XSTATE, at + 16);
      ask('ptrace', P.PTRACE_GETSIGMASK, tid, 8, at + STATE.mask);
      ask('ptrace', P.PTRACE_GET_RSEQ_CONFIGURATION, tid, RSEQ_SIZE, at + STATE.rseq);
    },
    ({ results: [registers = 0, xstate = 0, mask = 0, rseq = 0], view, bytes }) => {
      const length = Number(view.getBigUint64(24, true));
      // One that has filled the room may be longer.
      if (registers < 0 || xstate < 0 || mask < 0 || length === room) return undefined;
      if (Number(view.getBigUint64(8, true)) !== REGISTERS_SIZE) return undefined;
      xstateRoom = length + 64;
      const area = zeroed(length);
      area.set(bytes.subarray(STATE.xstate, STATE.xstate + length));
      return {
        registers: decodeRegisters(view, STATE.registers),
        mask: view.getBigUint64(STATE.mask, true),
        xstate: area,
        rseq: rseq < 0 ? undefined : decodeRseq(view, STATE.rseq),
      };
    },
  );
}
