import { __WALL } from '../abi/process.js';
import * as P from '../abi/ptrace.js';
import { SIGCONT, SIGSTOP } from '../abi/signal.js';
import { SYSCALL_X86_64 } from '../abi/syscalls.js';
import { encodeRegisters, NO_SYSCALL, REGISTERS_SIZE, type Registers } from '../kernel/registers.js';
import type { Borrowed } from '../tape/borrow.js';
import { ALL_SIGNALS } from '../tape/chain.js';
import { go, goIfEqual } from '../tape/logic.js';
import type { Label, Space, Tape } from '../tape/tape.js';
import type { Duty } from './guardian.js';

/**
 * Borrowed threads that cannot go home by themselves when we die, so that the guardian has to take them there: it seizes
 * each, unmaps the workspace, and puts registers, mask and stack back, as giveBack does.
 *
 * Those of a stopped process: the stop is the first thing they meet when they are nobody's tracees any more, and they
 * would keep our memory until somebody continues them. And those under seccomp filters that would kill them for a call
 * of a tape or of the way home: filters are suspended only as long as there is a tracer. The latter are held by a
 * SIGSTOP that is sent before they lose theirs, and continued at the end.
 */
const EVENT_STOP = 128;
/** What wait4(2) says of a stop at a system call, with PTRACE_O_TRACESYSGOOD. */
const SYSCALL_STOP = (0x85 << 8) | 0x7f;
const OPTIONS = P.PTRACE_O_TRACESYSGOOD | P.PTRACE_O_SUSPEND_SECCOMP;

function groupStop(signal: number): number {
  return (EVENT_STOP << 16) | (signal << 8) | 0x7f;
}

/** For the threads of a process that `stopSignal` has stopped. Does nothing to one that has been continued by then. */
export function healStopped(threads: readonly Borrowed[], stopSignal: number): Duty {
  return {
    afterwards(tape) {
      for (const thread of threads) {
        const patient = new Patient(thread, tape);
        const cure = tape.label();
        patient.seize();
        goIfEqual(tape, patient.status, groupStop(stopSignal), cure);
        go(tape, patient.lost);
        tape.place(cure);
        patient.unmap();
        patient.putBack();
        tape.place(patient.lost);
        patient.detach();
      }
    },
  };
}

/** For the threads of a running process under filters that do not let them go home by themselves. */
export function healConfined(threads: readonly Borrowed[], pid: number): Duty {
  return {
    whileHeld(tape) {
      tape.about(`hold pid ${pid}`);
      for (const { lender } of threads) tape.call('tgkill', [pid, lender.tid, SIGSTOP], 'any');
    },
    afterwards(tape, target) {
      const patients = threads.map((thread) => new Patient(thread, tape));
      for (const patient of patients) {
        patient.seize();
        patient.unmap();
        tape.place(patient.lost);
      }
      // Nobody runs on before all workspaces are gone: it could map something in the place of one.
      for (const patient of patients) patient.putBack();
      for (const patient of patients) patient.detach();
      tape.call('pidfd_send_signal', [target(pid), SIGCONT, 0, 0], 'any');
    },
  };
}

/** One thread, and what the guardian does to it. Everything may fail: it can have been killed meanwhile. */
class Patient {
  readonly status: Space;
  /** Where the tape goes on when the thread has ended. */
  readonly lost: Label;
  readonly #thread: Borrowed;
  readonly #tape: Tape;

  constructor(thread: Borrowed, tape: Tape) {
    this.#thread = thread;
    this.#tape = tape;
    this.status = tape.space(16);
    this.lost = tape.label();
  }

  get #tid(): number {
    return this.#thread.lender.tid;
  }

  #ptrace(request: number, address: Space | number, data: Space | number): void {
    this.#tape.call('ptrace', [request, this.#tid, address, data], 'any');
  }

  /** It stops by itself, or is stopped already; the interrupt is for one that neither is. */
  seize(): void {
    this.#tape.about(`take ${this.#thread.lender.name} home`);
    this.#ptrace(P.PTRACE_SEIZE, 0, OPTIONS);
    this.#ptrace(P.PTRACE_INTERRUPT, 0, 0);
    this.#tape.call('wait4', [this.#tid, this.status, __WALL, 0], 'any');
  }

  /** One munmap(2); of a range where nothing is, if it was not there yet, or is not any more. */
  unmap(): void {
    const { lender } = this.#thread;
    const { gadgets, workspace } = lender;
    this.#setMask(ALL_SIGNALS);
    // SAFETY: the gadget starts with `syscall`; nothing behind it runs before `putBack`.
    this.#setRegisters({
      ...lender.registers,
      ip: gadgets.syscall,
      ax: BigInt(SYSCALL_X86_64.munmap),
      di: workspace.address,
      si: BigInt(workspace.size),
      orig_ax: NO_SYSCALL,
    });
    this.#toSyscallStop();
    this.#toSyscallStop();
  }

  /** SAFETY: these are the registers of before, and what they lead to has not been touched. */
  putBack(): void {
    const { lender, chain, underChain } = this.#thread;
    this.#setMask(lender.mask);
    this.#setRegisters(lender.registers);
    const bytes = this.#tape.space(underChain);
    const local = this.#vector(bytes, underChain.length);
    const remote = new Uint8Array(16);
    new DataView(remote.buffer).setBigUint64(0, chain.unmapFirst, true);
    new DataView(remote.buffer).setBigUint64(8, BigInt(underChain.length), true);
    this.#tape.call('process_vm_writev', [this.#tid, local, 1, this.#tape.space(remote), 1, 0], 'any');
  }

  detach(): void {
    this.#ptrace(P.PTRACE_DETACH, 0, 0);
  }

  #toSyscallStop(): void {
    const tape = this.#tape;
    const [again, there] = [tape.label(), tape.label()];
    this.#ptrace(P.PTRACE_SYSCALL, 0, 0);
    tape.place(again);
    tape.call('wait4', [this.#tid, this.status, __WALL, 0], 'any');
    goIfEqual(tape, this.status, SYSCALL_STOP, there);
    tape.jump('ptrace', [P.PTRACE_SYSCALL, this.#tid, 0, 0], again);
    go(tape, this.lost);
    tape.place(there);
  }

  #setMask(mask: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, mask, true);
    this.#ptrace(P.PTRACE_SETSIGMASK, bytes.length, this.#tape.space(bytes));
  }

  #setRegisters(registers: Registers): void {
    const bytes = new Uint8Array(REGISTERS_SIZE);
    encodeRegisters(registers, new DataView(bytes.buffer));
    this.#ptrace(P.PTRACE_SETREGSET, P.NT_PRSTATUS, this.#vector(this.#tape.space(bytes), bytes.length));
  }

  #vector(content: Space, length: number): Space {
    const bytes = new Uint8Array(16);
    new DataView(bytes.buffer).setBigUint64(8, BigInt(length), true);
    const vector = this.#tape.space(bytes);
    this.#tape.pointer(vector, 0, content);
    return vector;
  }
}
