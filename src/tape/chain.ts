import { SYSCALL_X86_64 } from '../abi/syscalls.js';
import { zeroed } from '../kernel/memory.js';
import { NO_SYSCALL, type Registers } from '../kernel/registers.js';
import type { Gadgets } from './gadgets.js';
import { rewound, SIGFRAME_SIZE, sigframe, xstateRoom } from './sigframe.js';

/** A borrowed thread's way home, on its own stack: see borrow.ts. */

export interface Range {
  readonly address: bigint;
  readonly size: number;
}

/** What the dump has to know of a thread before it can be borrowed. */
export interface Lender {
  readonly tid: number;
  readonly inside: { readonly pid: number; readonly tid: number };
  readonly name: string;
  readonly registers: Registers;
  /**
   * With which it goes on if we die: as `registers`, but an interrupted system call is made again from its beginning,
   * since rt_sigreturn(2) destroys what the kernel remembers of it. By default one with a restart block ends with EINTR.
   */
  readonly home?: Registers;
  readonly mask: bigint;
  readonly xstate: Uint8Array;
  readonly gadgets: Gadgets;
  /** A free range of addresses; the workspace will be there. */
  readonly workspace: Range;
  /**
   * Of a process's threads, one can be the host of the others: it maps (and unmaps) this, with the workspaces of all,
   * and they need no call of their own for that. Not where threads wait in a `spin`.
   */
  readonly hosts?: Range;
  /** Thread id of the host that has the workspace. */
  readonly guestOf?: number;
  /**
   * Start of `chainRoom` or more bytes of its stack that nobody uses, nor what lies below them: a handler may run on it
   * between the change of the registers and that of the mask.
   */
  readonly chain: bigint;
  readonly stopSignal: number;
  /**
   * For a thread that must not be stopped at system calls, a `jmp` to itself for it to wait in. Whoever is stopped by
   * PTRACE_SYSCALL at the entry to a call makes that call when its tracer dies, and no longer under a suspended seccomp.
   * If we die the thread stays there: somebody has to take it home.
   */
  readonly spin?: bigint;
}

const ALIGN = 64n;

/** What it maps and unmaps. */
export function rangeOf({ workspace, hosts }: Lender): Range {
  return hosts ?? workspace;
}

/** Bytes of stack a chain takes for an extended state of this size. */
export function chainRoom(xstate: Uint8Array): number {
  return 2 * (SIGFRAME_SIZE + 64) + xstateRoom(xstate) + 64 + 16;
}

export interface Chain {
  /** Where it begins, and stack pointer for a `ret` that first unmaps the workspace. */
  readonly unmapFirst: bigint;
  /** Stack pointer for a `ret` straight home. */
  readonly home: bigint;
  /** Stack pointer for a `ret` to the lender's `spin`. */
  readonly spin: bigint | undefined;
  readonly bytes: Uint8Array;
}

/** What is written to the unused stack of a lender. */
export function buildChain(lender: Lender): Chain {
  const { gadgets, registers, mask } = lender;
  const unmapFirst = align(lender.chain);
  // A guest never has to make its way home out of a call that maps something.
  const first =
    lender.guestOf === undefined ? unmapFrame(unmapFirst, lender) : { home: unmapFirst, bytes: undefined };
  const { home } = first;
  const homeFrame = sigframe(home, gadgets.sigreturn, {
    registers: lender.home ?? rewound(registers),
    mask,
    xstate: lender.xstate,
  });
  const end = Number(home - unmapFirst) + ((homeFrame.length + 7) & ~7);
  const bytes = zeroed(end + 8);
  if (first.bytes !== undefined) bytes.set(first.bytes);
  bytes.set(homeFrame, Number(home - unmapFirst));
  if (lender.spin !== undefined)
    new DataView(bytes.buffer, bytes.byteOffset).setBigUint64(end, lender.spin, true);
  return { unmapFirst, home, spin: lender.spin === undefined ? undefined : unmapFirst + BigInt(end), bytes };
}

/**
 * All signals stay blocked while the workspace goes; the frame of home puts the mask back. That is needed last and lies
 * highest: a handler that runs on the chain overwrites only what lies below it.
 */
function unmapFrame(at: bigint, lender: Lender): { home: bigint; bytes: Uint8Array } {
  const { gadgets, registers } = lender;
  const all = rangeOf(lender);
  const home = align(at + BigInt(SIGFRAME_SIZE));
  const bytes = sigframe(at, gadgets.sigreturn, {
    registers: {
      ...registers,
      ip: gadgets.syscall,
      sp: home,
      ax: BigInt(SYSCALL_X86_64.munmap),
      di: all.address,
      si: BigInt(all.size),
      orig_ax: NO_SYSCALL,
    },
    mask: ALL_SIGNALS,
  });
  return { home, bytes };
}

function align(address: bigint): bigint {
  return (address + ALIGN - 1n) & ~(ALIGN - 1n);
}

export const ALL_SIGNALS = 0xffff_ffff_ffff_ffffn;
