import { zeroed } from '../kernel/memory.js';
import { NO_SYSCALL, type Registers } from '../kernel/registers.js';

/**
 * Frames for rt_sigreturn(2) on x86-64: struct rt_sigframe (arch/x86/include/asm/sigframe.h) with struct ucontext.
 * A task that "returns" into such a frame gets all registers, the signal mask and the extended state from it.
 */
const UC_FLAGS = 8;
const UC_STACK_FLAGS = 8 + 24;
const SIGCONTEXT = 8 + 40;
const SIGCONTEXT_CS = SIGCONTEXT + 144;
const SIGCONTEXT_FPSTATE = SIGCONTEXT + 184;
const UC_SIGMASK = 8 + 296;
/** pretcode, ucontext, siginfo. */
export const SIGFRAME_SIZE = 8 + 304 + 128;

/** UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS */
const UC_FLAGS_ALL = 7n;
/** No valid combination: sigreturn then leaves the alternate stack as it is. */
const SS_FLAGS_LEAVE_ALONE = 7;

const FXSAVE_SIZE = 512;
const SW_RESERVED = 464;
const FP_XSTATE_MAGIC1 = 0x46505853;
const FP_XSTATE_MAGIC2 = 0x46505845;

const ORDER = [
  'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15', 'di', 'si', 'bp', 'bx', 'dx', 'ax', 'cx', 'sp', 'ip', 'flags',
] as const; // biome-ignore format: the order of struct sigcontext

export interface SigframeState {
  readonly registers: Registers;
  readonly mask: bigint;
  /** As PTRACE_GETREGSET(NT_X86_XSTATE) gave it; without it the extended state is reset. */
  readonly xstate?: Uint8Array;
}

/** Bytes an xstate takes behind a frame, with room to align it to 64. */
export function xstateRoom(xstate: Uint8Array): number {
  return xstate.length + 4 + 64;
}

/**
 * Frame and extended state as bytes for `address` (16-aligned), to be returned into through `restorer`, the address
 * of `mov $15,%eax; syscall`: a `ret` with the stack pointer at `address` does it.
 */
export function sigframe(address: bigint, restorer: bigint, state: SigframeState): Uint8Array {
  const size = SIGFRAME_SIZE + (state.xstate === undefined ? 0 : xstateRoom(state.xstate));
  const bytes = zeroed(size);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  view.setBigUint64(0, restorer, true);
  view.setBigUint64(UC_FLAGS, UC_FLAGS_ALL, true);
  view.setInt32(UC_STACK_FLAGS, SS_FLAGS_LEAVE_ALONE, true);
  ORDER.forEach((name, i) => {
    view.setBigUint64(SIGCONTEXT + i * 8, state.registers[name], true);
  });
  view.setUint16(SIGCONTEXT_CS, Number(state.registers.cs), true);
  view.setUint16(SIGCONTEXT_CS + 6, Number(state.registers.ss), true);
  view.setBigUint64(UC_SIGMASK, state.mask, true);
  if (state.xstate !== undefined) {
    const fp = (address + BigInt(SIGFRAME_SIZE) + 63n) & ~63n;
    view.setBigUint64(SIGCONTEXT_FPSTATE, fp, true);
    placeXstate(bytes, view, Number(fp - address), state.xstate);
  }
  return bytes;
}

/** The kernel's own sw_reserved bytes tell sigreturn that more than the legacy 512 bytes follow. */
function placeXstate(bytes: Uint8Array, view: DataView, at: number, xstate: Uint8Array): void {
  bytes.set(xstate, at);
  if (xstate.length <= FXSAVE_SIZE) return;
  const features = view.getBigUint64(at + SW_RESERVED, true);
  view.setUint32(at + SW_RESERVED, FP_XSTATE_MAGIC1, true);
  view.setUint32(at + SW_RESERVED + 4, xstate.length + 4, true);
  view.setBigUint64(at + SW_RESERVED + 8, features, true);
  view.setUint32(at + SW_RESERVED + 16, xstate.length, true);
  view.setUint32(at + xstate.length, FP_XSTATE_MAGIC2, true);
}

const ERESTARTSYS = -512n;
const ERESTARTNOINTR = -513n;
const ERESTARTNOHAND = -514n;
const ERESTART_RESTARTBLOCK = -516n;
const EINTR = -4n;
const SYSCALL_LENGTH = 2n;

/** Did the freeze catch the task inside a system call whose restart the kernel keeps in a block we cannot copy? */
export function hasRestartBlock(registers: Registers): boolean {
  return registers.orig_ax !== NO_SYSCALL && BigInt.asIntN(64, registers.ax) === ERESTART_RESTARTBLOCK;
}

/**
 * What a task's registers must be so that it goes on without the kernel's memory of an interrupted system call:
 * those the kernel would make again are rewound to their `syscall` instruction; one with a restart block becomes
 * −EINTR, which the kernel allows for it too.
 */
export function rewound(registers: Registers): Registers {
  if (registers.orig_ax === NO_SYSCALL) return registers;
  switch (BigInt.asIntN(64, registers.ax)) {
    case ERESTARTSYS:
    case ERESTARTNOINTR:
    case ERESTARTNOHAND:
      return { ...registers, ax: registers.orig_ax, ip: registers.ip - SYSCALL_LENGTH, orig_ax: NO_SYSCALL };
    case ERESTART_RESTARTBLOCK:
      return { ...registers, ax: BigInt.asUintN(64, EINTR), orig_ax: NO_SYSCALL };
    default:
      return { ...registers, orig_ax: NO_SYSCALL };
  }
}
