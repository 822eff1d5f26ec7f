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
import { insist } from '../kernel/insist.js';
import * as ptrace from '../kernel/ptrace.js';
import { NO_SYSCALL } from '../kernel/registers.js';
import { readRemote, readRemotes, writeRemote } from '../kernel/remote.js';
import { sleep_us } from '../kernel/syscall.js';
import { together } from '../kernel/together.js';
import { describeStatus, isEventStop, isSyscallStop, waitFor, waitForAll } from '../kernel/wait.js';
import { LOOP } from '../machine/x86_64.js';
import { Barrier } from './barrier.js';
import { ALL_SIGNALS, buildChain, type Chain, type Lender, type Range, rangeOf } from './chain.js';
import { CODE_SIZE } from './layout.js';
import { type Actor, isPassing, LostTaskError } from './play.js';

/**
 * Borrowing: making a live thread play tapes and giving it back as it was, whatever becomes of us.
 *
 * Before a thread's registers are touched, a *chain* is written into the unused part of its stack: a frame that
 * unmaps the workspace, and one with its own registers, mask and extended state. The first injected call, the mmap
 * of the workspace, is made by a gadget that returns into the chain; the tape's tail ends in the same gadget. So if
 * this process dies at any instant, the thread finds its way home by itself and leaves nothing behind.
 *
 * Guests of a host need no stop for their workspaces. Everybody's way home unmaps what is its own; the host's unmaps all
 * of it as long as (and as soon as) no guest can be in there: before the first has been let in, and after the last has
 * been put on the gadget again. Whoever finds its own gone already unmaps nothing.
 */

export interface Borrowed {
  readonly lender: Lender;
  readonly actor: Actor;
  readonly chain: Chain;
  /** What lay where the chain is now. */
  readonly underChain: Uint8Array;
}

/** All but the signal that ends a tape. SIGKILL and SIGSTOP cannot be blocked; the kernel ignores their bits. */
export function maskFor(stopSignal: number): bigint {
  return ALL_SIGNALS & ~(1n << BigInt(stopSignal - 1));
}

/**
 * Borrow many stopped threads at once: two waits for all of them together. Throws when a thread was lost, or its
 * workspace could not be mapped (SyscallError); all others have been given back then.
 */
export function borrow(lenders: readonly Lender[]): Borrowed[] {
  return borrowAs(planBorrows(lenders));
}

/** As `borrow`, of what was planned: whoever is to undo it for us has to know of it before it is begun. */
export function borrowAs(borrowed: Borrowed[]): Borrowed[] {
  const barrier = new Barrier<Borrowed>();
  const hosts = borrowed.filter(({ lender }) => lender.guestOf === undefined);
  barrier.passTogether(hosts, prepare);
  const ready = hosts.filter((one) => !barrier.isLost(one));
  // Whoever could not be prepared has not been resumed, and needs no more than its registers.
  for (const one of hosts) if (barrier.isLost(one)) attemptHome(one);
  makeCall(barrier, ready);
  const arrived = ready.filter((one) => !barrier.isLost(one));
  const refused = new Set<Borrowed>();
  barrier.pass(arrived, (one) => settle(one, refused));
  // Whoever arrived has a workspace, but those who were refused one, and are home already.
  const lent = arrived.filter((one) => !refused.has(one));
  try {
    barrier.throwFirst();
    const guests = borrowed.filter(({ lender }) => lender.guestOf !== undefined);
    barrier.passTogether(guests, join);
    for (const one of guests) if (!barrier.isLost(one)) lent.push(one);
    for (const one of guests) if (barrier.isLost(one)) attemptHome(one);
    barrier.throwFirst();
    barrier.passTogether(hosts.filter(isHost), (one) => leave(one, one.lender.workspace));
    barrier.throwFirst();
  } catch (error) {
    // No guest has been let in to them.
    for (const one of ready) if (!arrived.includes(one)) attemptRescue(one, rangeOf(one.lender));
    retreat(() => giveBack(lent));
    throw error;
  }
  return borrowed;
}

function isHost({ lender }: Borrowed): boolean {
  return lender.hosts !== undefined;
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
 * a stop of its process, or seccomp. No tape is under way: they have been waited for. `range` goes on the way.
 */
function attemptRescue(one: Borrowed, range: Range): void {
  const { tid } = one.lender;
  retreat(() => {
    // From a stop at a call it makes the call first.
    const isInStop = isStopped(tid);
    ptrace.interrupt(tid);
    if (isInStop) ptrace.resume(tid);
    waitForEvent(one.lender);
    leave(one, range);
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

/** How threads will be borrowed; nothing is touched. Throws SyscallError where a stack cannot be read. */
export function planBorrows(lenders: readonly Lender[]): Borrowed[] {
  const planned = lenders.map((lender) => ({ lender, chain: buildChain(lender) }));
  const pieces = planned.map(({ lender: { tid }, chain: { unmapFirst, bytes } }) => ({
    pid: tid,
    address: unmapFirst,
    length: bytes.length,
  }));
  const found = readRemotes(pieces);
  return planned.map(({ lender, chain }, index) => ({
    lender,
    chain,
    actor: actorOf(lender, chain),
    underChain: found[index] ?? readRemote(lender.tid, chain.unmapFirst, chain.bytes.length),
  }));
}

function actorOf(lender: Lender, chain: Chain): Actor {
  const { workspace, gadgets } = lender;
  return {
    tid: lender.tid,
    inside: lender.inside,
    get name() {
      return lender.name;
    },
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
}

function prepare({ lender, chain }: Borrowed): void {
  const { gadgets } = lender;
  const all = rangeOf(lender);
  writeRemote(lender.tid, chain.unmapFirst, chain.bytes);
  // SAFETY: the chain is in place before the registers change, and the registers before the mask.
  ptrace.setRegisters(lender.tid, lender.registers, {
    ip: gadgets.syscall,
    sp: chain.spin ?? chain.unmapFirst,
    ax: BigInt(SYSCALL_X86_64.mmap),
    di: all.address,
    si: BigInt(all.size),
    dx: BigInt(PROT_RWX),
    r10: BigInt(MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE),
    r8: NO_SYSCALL,
    r9: 0n,
    orig_ax: NO_SYSCALL,
  });
  ptrace.setSignalMask(lender.tid, maskFor(lender.stopSignal));
}

/** A guest's workspace is there: it only has to know its way home. */
function join(one: Borrowed): void {
  const { lender, chain } = one;
  writeRemote(lender.tid, chain.unmapFirst, chain.bytes);
  // SAFETY: as in `prepare`.
  leave(one, lender.workspace);
  ptrace.setSignalMask(lender.tid, maskFor(lender.stopSignal));
  writeRemote(lender.tid, lender.workspace.address, LOOP);
}

/** Everybody makes the call that its registers say, and stops. */
function makeCall(barrier: Barrier<Borrowed>, all: readonly Borrowed[]): void {
  const stopping = all.filter(({ chain }) => chain.spin === undefined);
  const spinning = all.filter(({ chain }) => chain.spin !== undefined);
  const resume = ({ lender }: Borrowed) => ptrace.resumeToSyscall(lender.tid);
  barrier.passTogether(spinning, ({ lender }) => ptrace.resume(lender.tid));
  barrier.passTogether(stopping, resume);
  waitForCalls(barrier, stopping);
  barrier.passTogether(stopping, resume);
  waitForCalls(barrier, stopping);
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

/** Their stops are taken all at once. An event stop on the way is passed over. */
function waitForCalls(barrier: Barrier<Borrowed>, all: readonly Borrowed[]): void {
  const present = all.filter((one) => !barrier.isLost(one));
  const found = waitForAll(present.map(({ lender }) => lender.tid));
  const statuses = new Map(present.map((one, index) => [one, found[index]]));
  barrier.pass(present, (one) => {
    const { tid, name } = one.lender;
    for (let status = statuses.get(one) ?? waitFor(tid); !isSyscallStop(status); status = waitFor(tid)) {
      if (!isPassing(tid, status)) throw new LostTaskError(`${name}: ${describeStatus(status)}`);
      ptrace.resumeToSyscall(tid);
    }
  });
}

function settle(one: Borrowed, refused: Set<Borrowed>): void {
  const { lender } = one;
  const { ax } = ptrace.getRegisters(lender.tid);
  if (ax !== rangeOf(lender).address) {
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
  const guests = borrowed.filter(({ lender }) => lender.guestOf !== undefined);
  const hosts = borrowed.filter(({ lender }) => lender.guestOf === undefined);
  barrier.passTogether(guests, (one) => leave(one, one.lender.workspace));
  // A guest that is lost may still be in its workspace: then everybody there unmaps no more than the own.
  const crowded = new Set(guests.filter((one) => barrier.isLost(one)).map(({ lender }) => lender.guestOf));
  const isCrowded = ({ lender }: Borrowed): boolean => crowded.has(lender.guestOf ?? lender.tid);
  const rangeFor = (one: Borrowed): Range => (isCrowded(one) ? one.lender.workspace : rangeOf(one.lender));
  barrier.passTogether(hosts, (one) => leave(one, rangeFor(one)));
  homeAll(
    barrier,
    guests.filter((one) => !isCrowded(one)),
  );
  const calling = [...hosts, ...guests.filter(isCrowded)];
  makeCall(barrier, calling);
  homeAll(barrier, calling);
  for (const one of borrowed) if (barrier.isLost(one)) attemptRescue(one, rangeFor(one));
  barrier.throwFirst();
}

function leave({ lender, chain }: Borrowed, { address, size }: Range): void {
  // SAFETY: the same gadget and chain as on the orphan's way.
  ptrace.setRegisters(lender.tid, lender.registers, {
    ip: lender.gadgets.syscall,
    sp: chain.spin ?? chain.home,
    ax: BigInt(SYSCALL_X86_64.munmap),
    di: address,
    si: BigInt(size),
    orig_ax: NO_SYSCALL,
  });
}

/** For threads that are stopped without workspaces. */
function homeAll(barrier: Barrier<Borrowed>, all: readonly Borrowed[]): void {
  const present = all.filter((one) => !barrier.isLost(one));
  barrier.pass([...together(present, goHome).keys()], home);
}

/** For a thread that is stopped without a workspace. */
function home(one: Borrowed): void {
  insist(() => goHome(one));
}

/** The mask comes first: alone it would stay ours for ever. */
function goHome({ lender, chain, underChain }: Borrowed): void {
  ptrace.setSignalMask(lender.tid, lender.mask);
  ptrace.setRegisters(lender.tid, lender.registers);
  writeRemote(lender.tid, chain.unmapFirst, underChain);
}
