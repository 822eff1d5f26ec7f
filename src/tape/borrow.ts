import {
  MAP_ANONYMOUS,
  MAP_FIXED_NOREPLACE,
  MAP_NORESERVE,
  MAP_PRIVATE,
  PROT_EXEC,
  PROT_READ,
  PROT_WRITE,
} from '../abi/mman.js';
import { SYSCALL_X86_64 } from '../abi/syscalls.js';
import { SyscallError } from '../kernel/errors.js';
import * as ptrace from '../kernel/ptrace.js';
import { NO_SYSCALL, type Registers } from '../kernel/registers.js';
import { readRemote, writeRemote } from '../kernel/remote.js';
import { sleep_us } from '../kernel/syscall.js';
import { describeStatus, isEventStop, isSyscallStop, waitFor } from '../kernel/wait.js';
import { LOOP } from '../machine/x86_64.js';
import { Barrier } from './barrier.js';
import type { Gadgets } from './gadgets.js';
import { insist } from './insist.js';
import { CODE_SIZE } from './layout.js';
import { type Actor, isPassing, LostTaskError } from './play.js';
import { rewound, SIGFRAME_SIZE, sigframe, xstateRoom } from './sigframe.js';

/**
 * Borrowing: making a live thread play tapes and giving it back as it was, whatever becomes of us.
 *
 * Before a thread's registers are touched, a *chain* is written into the unused part of its stack: a frame that
 * unmaps the workspace, and one with its own registers, mask and extended state. The first injected call, the mmap
 * of the workspace, is made by a gadget that returns into the chain; the tape's tail ends in the same gadget. So if
 * this process dies at any instant, the thread finds its way home by itself and leaves nothing behind.
 */

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
  readonly workspace: { readonly address: bigint; readonly size: number };
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

export interface Borrowed {
  readonly lender: Lender;
  readonly actor: Actor;
  readonly chain: Chain;
  /** What lay where the chain is now. */
  readonly underChain: Uint8Array;
}

const ALIGN = 64n;

/** Bytes of stack a chain takes for an extended state of this size. */
export function chainRoom(xstate: Uint8Array): number {
  return 2 * (SIGFRAME_SIZE + 64) + xstateRoom(xstate) + 64 + 16;
}

interface Chain {
  /** Where it begins, and stack pointer for a `ret` that first unmaps the workspace. */
  readonly unmapFirst: bigint;
  /** Stack pointer for a `ret` straight home. */
  readonly home: bigint;
  /** Stack pointer for a `ret` to the lender's `spin`. */
  readonly spin: bigint | undefined;
  readonly bytes: Uint8Array;
}

function buildChain(lender: Lender): Chain {
  const { gadgets, registers, mask, workspace } = lender;
  // The frame that is needed last lies highest: a handler that runs on the chain overwrites only what lies below it.
  const unmapFirst = (lender.chain + ALIGN - 1n) & ~(ALIGN - 1n);
  const home = (unmapFirst + BigInt(SIGFRAME_SIZE) + ALIGN - 1n) & ~(ALIGN - 1n);
  const homeFrame = sigframe(home, gadgets.sigreturn, {
    registers: lender.home ?? rewound(registers),
    mask,
    xstate: lender.xstate,
  });
  // All signals stay blocked while the workspace goes; the frame of home puts the mask back.
  const unmapFrame = sigframe(unmapFirst, gadgets.sigreturn, {
    registers: {
      ...registers,
      ip: gadgets.syscall,
      sp: home,
      ax: BigInt(SYSCALL_X86_64.munmap),
      di: workspace.address,
      si: BigInt(workspace.size),
      orig_ax: NO_SYSCALL,
    },
    mask: ALL_SIGNALS,
  });
  const end = Number(home - unmapFirst) + ((homeFrame.length + 7) & ~7);
  const bytes = new Uint8Array(end + 8);
  bytes.set(unmapFrame);
  bytes.set(homeFrame, Number(home - unmapFirst));
  new DataView(bytes.buffer).setBigUint64(end, lender.spin ?? 0n, true);
  return { unmapFirst, home, spin: lender.spin === undefined ? undefined : unmapFirst + BigInt(end), bytes };
}

const ALL_SIGNALS = 0xffff_ffff_ffff_ffffn;

/** All but the signal that ends a tape. SIGKILL and SIGSTOP cannot be blocked; the kernel ignores their bits. */
export function maskFor(stopSignal: number): bigint {
  return ALL_SIGNALS & ~(1n << BigInt(stopSignal - 1));
}

/**
 * Borrow many stopped threads at once: two waits for all of them together. Throws when a thread was lost, or its
 * workspace could not be mapped (SyscallError); all others have been given back then.
 */
export function borrow(lenders: readonly Lender[]): Borrowed[] {
  return borrowAs(lenders.map(planBorrow));
}

/** As `borrow`, of what was planned: whoever is to undo it for us has to know of it before it is begun. */
export function borrowAs(borrowed: Borrowed[]): Borrowed[] {
  const barrier = new Barrier<Borrowed>();
  barrier.pass(borrowed, prepare);
  const ready = borrowed.filter((one) => !barrier.isLost(one));
  // Whoever could not be prepared has not been resumed, and needs no more than its registers.
  for (const one of borrowed) if (barrier.isLost(one)) attemptHome(one);
  makeCall(barrier, ready);
  const arrived = ready.filter((one) => !barrier.isLost(one));
  const refused = new Set<Borrowed>();
  barrier.pass(arrived, (one) => settle(one, refused));
  try {
    barrier.throwFirst();
  } catch (error) {
    // Whoever arrived has a workspace, but those who were refused one, and are home already.
    const lent = arrived.filter((one) => !refused.has(one));
    for (const one of ready) if (!arrived.includes(one)) attemptRescue(one);
    retreat(() => giveBack(lent));
    throw error;
  }
  return borrowed;
}

/** On the way back from a failure: what fails too is left to the chain, on which the task goes home when let go. */
function retreat(action: () => void): void {
  try {
    action();
  } catch {
    // The failure that led here is the one to tell of.
  }
}

function attemptHome(one: Borrowed): void {
  retreat(() => home(one));
}

/**
 * Home from wherever it is. By its chain it would find there by itself when let go, but not where something holds it then:
 * a stop of its process, or seccomp. No tape is under way: they have been waited for.
 */
function attemptRescue(one: Borrowed): void {
  const { tid } = one.lender;
  retreat(() => {
    // From a stop at a call it makes the call first.
    const isInStop = isStopped(tid);
    ptrace.interrupt(tid);
    if (isInStop) ptrace.resume(tid);
    waitForEvent(one.lender);
    leave(one);
    const barrier = new Barrier<Borrowed>();
    makeCall(barrier, [one]);
    barrier.throwFirst();
    home(one);
  });
}

/** Whatever stops it before that is passed over; each stop cancels an interrupt (kernel/signal.c ptrace_stop). Throws for one that sleeps where no stop reaches it. */
function waitForEvent({ tid, name }: Lender): void {
  const deadline = Date.now() + RESCUE_MS;
  for (;;) {
    const status = waitFor(tid, false);
    if (isEventStop(status)) return;
    if (status.kind === 'none' && Date.now() < deadline) sleep_us(100);
    else if (isSyscallStop(status) || isPassing(tid, status)) {
      ptrace.interrupt(tid);
      ptrace.resume(tid);
    } else throw new LostTaskError(`${name}: ${describeStatus(status)}`);
  }
}

const RESCUE_MS = 2000;

function isStopped(tid: number): boolean {
  try {
    ptrace.getSignalMask(tid);
    return true;
  } catch {
    return false;
  }
}

const PROT_RWX = PROT_READ | PROT_WRITE | PROT_EXEC;

/** How a thread will be borrowed; nothing is touched. Throws SyscallError where its stack cannot be read. */
export function planBorrow(lender: Lender): Borrowed {
  const { workspace, gadgets } = lender;
  const chain = buildChain(lender);
  const actor: Actor = {
    tid: lender.tid,
    inside: lender.inside,
    name: lender.name,
    stopSignal: lender.stopSignal,
    base: lender.registers,
    slice: {
      code: workspace.address,
      address: workspace.address + BigInt(CODE_SIZE),
      size: workspace.size - CODE_SIZE,
    },
    leave: {
      call: SYSCALL_X86_64.munmap,
      arguments: [workspace.address, BigInt(workspace.size)],
      gadget: gadgets.syscall,
      stack: chain.home,
    },
  };
  const underChain = readRemote(lender.tid, chain.unmapFirst, chain.bytes.length);
  return { lender, actor, chain, underChain };
}

function prepare({ lender, chain }: Borrowed): void {
  const { workspace, gadgets } = lender;
  writeRemote(lender.tid, chain.unmapFirst, chain.bytes);
  // SAFETY: the chain is in place before the registers change, and the registers before the mask.
  ptrace.setRegisters(lender.tid, {
    ...lender.registers,
    ip: gadgets.syscall,
    sp: chain.spin ?? chain.unmapFirst,
    ax: BigInt(SYSCALL_X86_64.mmap),
    di: workspace.address,
    si: BigInt(workspace.size),
    dx: BigInt(PROT_RWX),
    r10: BigInt(MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE),
    r8: NO_SYSCALL,
    r9: 0n,
    orig_ax: NO_SYSCALL,
  });
  ptrace.setSignalMask(lender.tid, maskFor(lender.stopSignal));
}

/** Everybody makes the call that its registers say, and stops. */
function makeCall(barrier: Barrier<Borrowed>, all: readonly Borrowed[]): void {
  const stopping = all.filter(({ chain }) => chain.spin === undefined);
  const spinning = all.filter(({ chain }) => chain.spin !== undefined);
  const resume = ({ lender }: Borrowed) => ptrace.resumeToSyscall(lender.tid);
  barrier.pass(spinning, ({ lender }) => ptrace.resume(lender.tid));
  barrier.pass(stopping, resume);
  barrier.pass(stopping, waitForCall);
  barrier.pass(stopping, resume);
  barrier.pass(stopping, waitForCall);
  barrier.pass(spinning, waitForSpin);
}

/** Interrupt it again and again, until it has made its call and arrived in its `spin`. */
function waitForSpin({ lender }: Borrowed): void {
  const { tid, name, spin } = lender;
  for (let attempt = 1; attempt < SPIN_ATTEMPTS; attempt++) {
    // An interrupt stops it before its next instruction, so it has to be given time in between to get anywhere.
    sleep_us(20 * attempt);
    ptrace.interrupt(tid);
    const status = waitFor(tid);
    if (!isPassing(tid, status)) throw new LostTaskError(`${name}: ${describeStatus(status)}`);
    if (isEventStop(status) && ptrace.getRegisters(tid).ip === spin) return;
    ptrace.resume(tid);
  }
  throw new LostTaskError(`${name} does not come back from a call`);
}

/** The last of them wait ten milliseconds each, two and a half seconds together. */
const SPIN_ATTEMPTS = 500;

/** An event stop on the way is passed over. */
function waitForCall({ lender }: Borrowed): void {
  for (;;) {
    const status = waitFor(lender.tid);
    if (isSyscallStop(status)) return;
    if (!isPassing(lender.tid, status)) throw new LostTaskError(`${lender.name}: ${describeStatus(status)}`);
    ptrace.resumeToSyscall(lender.tid);
  }
}

function settle(one: Borrowed, refused: Set<Borrowed>): void {
  const { lender } = one;
  const { ax } = ptrace.getRegisters(lender.tid);
  if (ax !== lender.workspace.address) {
    refused.add(one);
    attemptHome(one);
    throw new SyscallError('mmap', Number(-BigInt.asIntN(64, ax)), `workspace in ${lender.name}`);
  }
  writeRemote(lender.tid, lender.workspace.address, LOOP);
}

/**
 * Take the workspace and the chain out again and put the registers back. The threads stay stopped, in a state from
 * which PTRACE_DETACH (or another borrow) continues them exactly where they were, kernel restart blocks included.
 * Throws when a thread was lost, or cannot be stopped; the others have been given back then, and it goes home by its
 * chain when it is let go.
 */
export function giveBack(borrowed: readonly Borrowed[]): void {
  const barrier = new Barrier<Borrowed>();
  barrier.pass(borrowed, leave);
  makeCall(barrier, borrowed);
  barrier.pass(borrowed, home);
  for (const one of borrowed) if (barrier.isLost(one)) attemptRescue(one);
  barrier.throwFirst();
}

function leave({ lender, chain }: Borrowed): void {
  // SAFETY: the same gadget and chain as on the orphan's way.
  ptrace.setRegisters(lender.tid, {
    ...lender.registers,
    ip: lender.gadgets.syscall,
    sp: chain.spin ?? chain.home,
    ax: BigInt(SYSCALL_X86_64.munmap),
    di: lender.workspace.address,
    si: BigInt(lender.workspace.size),
    orig_ax: NO_SYSCALL,
  });
}

/** For a thread that is stopped without a workspace. The mask comes first: alone it would stay ours for ever. */
function home({ lender, chain, underChain }: Borrowed): void {
  insist(() => {
    ptrace.setSignalMask(lender.tid, lender.mask);
    ptrace.setRegisters(lender.tid, lender.registers);
    writeRemote(lender.tid, chain.unmapFirst, underChain);
  });
}
