import { errnoName } from '../abi/errno.js';
import { SYSCALL_X86_64 } from '../abi/syscalls.js';
import { insist } from '../kernel/insist.js';
import * as ptrace from '../kernel/ptrace.js';
import { NO_SYSCALL, type Registers } from '../kernel/registers.js';
import { readRemote, readRemotes, writeRemote } from '../kernel/remote.js';
import { describeStatus, type WaitStatus, waitFor, waitForAll } from '../kernel/wait.js';
import { Barrier } from './barrier.js';
import * as L from './layout.js';
import { printEntry, printResult } from './print.js';
import { rememberStop, SIGSTOP } from './stops.js';
import { Played, type Tape } from './tape.js';

/** Where a task goes when it is let go after a tape: one last call through a gadget, and what lies on the stack then. */
export interface Leave {
  readonly call: number;
  readonly arguments: readonly [bigint, bigint];
  readonly gadget: bigint;
  readonly stack: bigint;
}

/** A stopped task that can play tapes. */
export interface Actor {
  /** Thread id, as this process sees it. */
  readonly tid: number;
  /** Process and thread id in the task's own pid namespace, for its tgkill(2). */
  readonly inside: { readonly pid: number; readonly tid: number };
  readonly slice: L.Slice;
  /** Segment registers, flags and thread pointers stay as in these while it plays. */
  readonly base: Registers;
  /** The signal that ends a tape: uncaught and ignored by default, so that an orphan goes on undisturbed. */
  readonly stopSignal: number;
  /** Absent for a stem, which exits when it is let go. */
  readonly leave: Leave | undefined;
  /** For messages: "pid 12 (nginx)". */
  readonly name: string;
}

/** A tape that stopped where it was not meant to. */
export class TapeError extends Error {
  readonly code: string;
  readonly actor: Actor;
  readonly played: Played;
  readonly index: number;

  constructor(actor: Actor, played: Played, index: number) {
    const entry = played.tape.entries[index];
    const result = played.result({ kind: 'result', index });
    const what = entry === undefined ? `entry ${index}` : printEntry(entry, played.tape, played);
    const note = entry?.note === undefined ? '' : `, ${entry.note}`;
    super(`${actor.name}: ${played.tape.title}${note}: ${what} = ${printResult(result)}`);
    this.name = 'TapeError';
    this.actor = actor;
    this.played = played;
    this.index = index;
    this.code = result < 0n && result >= -4095n ? errnoName(Number(-result)) : 'EUNEXPECTED';
  }
}

/** A task that ended, or stopped otherwise than at the end of its tape. */
export class LostTaskError extends Error {
  readonly code = 'ELOST';
}

export interface Play {
  readonly actor: Actor;
  readonly tape: Tape;
}

/**
 * Play tapes on many tasks at once: all are written, then all run, then all are waited for, so that a stop costs
 * the same however many tasks there are. Throws the first TapeError after every task has stopped again. `meanwhile` is
 * what this process does while they play; what it throws is thrown when all have stopped, too.
 */
export function play(plays: readonly Play[], meanwhile?: () => void): Played[] {
  const barrier = new Barrier<Play>();
  barrier.passTogether(plays, ({ actor, tape }) => cue(actor, tape));
  // Nothing has begun: a task that is not there, or whose tape is too long, spoils it for all.
  barrier.throwFirst();
  barrier.passTogether(plays, ({ actor }) => ptrace.resume(actor.tid));
  const own = new Barrier<undefined>();
  if (meanwhile !== undefined) own.pass([undefined], meanwhile);
  waitForAllOf(barrier, leadersLast(plays));
  barrier.throwFirst();
  const played = finish(plays);
  own.throwFirst();
  return played;
}

/** A leader that was killed is told of only after its threads. */
function leadersLast(plays: readonly Play[]): Play[] {
  const isLeader = ({ actor: { inside } }: Play): boolean => inside.tid === inside.pid;
  return [...plays.filter((play) => !isLeader(play)), ...plays.filter(isLeader)];
}

/** Their stops are taken all at once; whoever has stopped otherwise is waited for alone. */
function waitForAllOf(barrier: Barrier<Play>, plays: readonly Play[]): void {
  const present = plays.filter((play) => !barrier.isLost(play));
  const found = waitForAll(present.map(({ actor }) => actor.tid));
  const statuses = new Map(present.map((play, index) => [play, found[index]]));
  barrier.pass(present, (play) => {
    const { actor, tape } = play;
    const status = statuses.get(play);
    if (status === undefined || !insist(() => atEnd(actor, status, tape.title)))
      waitForEnd(actor, tape.title);
  });
}

/** The first half of a play: everybody runs. */
export function start(plays: readonly Play[]): void {
  for (const { actor, tape } of plays) cue(actor, tape);
  for (const { actor } of plays) ptrace.resume(actor.tid);
}

/** Has this actor come to the end of its tape? False where it is on its way, and resumed. Throws LostTaskError. */
export function atEnd(actor: Actor, status: WaitStatus, title: string): boolean {
  if (status.kind === 'stopped' && status.event === 0 && status.signal === actor.stopSignal) return true;
  if (!isPassing(actor.tid, status))
    throw new LostTaskError(`${actor.name}: ${title}: ${describeStatus(status)}`);
  ptrace.resume(actor.tid);
  return false;
}

/** The second half, when all have stopped: what came of it. */
export function finish(plays: readonly Play[]): Played[] {
  const found = readRemotes(
    plays.map(({ actor, tape }) => ({ pid: actor.tid, address: actor.slice.address, length: tape.size })),
  );
  const played = plays.map(({ actor, tape }, index) => collect(actor, tape, found[index]));
  plays.forEach(({ actor }, index) => {
    throwIfShort(actor, played[index]);
  });
  return played;
}

/** Play one tape on one task. */
export function playOne(actor: Actor, tape: Tape): Played {
  const [played] = play([{ actor, tape }]);
  if (played === undefined) throw new Error('a play without an answer');
  return played;
}

/**
 * Start a tape on a stem and let go of it: it plays on whatever becomes of us, and exits at the end. Nothing comes
 * back of it.
 */
export function launch(actor: Actor, tape: Tape): void {
  cue(actor, tape);
  ptrace.setOptions(actor.tid, 0);
  ptrace.detach(actor.tid);
}

/** Start a tape on a borrowed thread without waiting for its end; for tests of what happens then. */
export function launchBorrowed(actor: Actor, tape: Tape): void {
  cue(actor, tape);
  ptrace.resume(actor.tid);
}

function header(actor: Actor, tape: Tape, view: DataView): void {
  const { inside, slice, leave } = actor;
  const H = L.HEADER;
  view.setBigUint64(H.stopCall, BigInt(SYSCALL_X86_64.tgkill), true);
  [inside.pid, inside.tid, actor.stopSignal].forEach((value, i) => {
    view.setBigUint64(H.stopArguments + i * 8, BigInt(value), true);
  });
  view.setBigUint64(H.tail, tape.tailAddress(slice.address), true);
  if (leave === undefined) return;
  view.setBigUint64(H.leaveCall, BigInt(leave.call), true);
  view.setBigUint64(H.leaveArguments, leave.arguments[0], true);
  view.setBigUint64(H.leaveArguments + 8, leave.arguments[1], true);
  view.setBigUint64(H.leaveTo, leave.gadget, true);
  view.setBigUint64(H.leaveStack, leave.stack, true);
}

/** Write a tape into its actor's slice and point the task at it. */
function cue(actor: Actor, tape: Tape): void {
  const { slice } = actor;
  if (tape.size > slice.size)
    throw new RangeError(
      `${actor.name}: ${tape.title} takes ${tape.size} bytes, the slice has ${slice.size}`,
    );
  const bytes = tape.assemble(slice.address, actor.leave === undefined ? 'exit' : 'leave');
  header(actor, tape, new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  writeRemote(actor.tid, slice.address, bytes);
  // SAFETY: slice.code holds LOOP, the header and entries were just written; the actor's owner keeps the original
  // registers and puts them back.
  ptrace.setRegisters(actor.tid, actor.base, {
    ip: slice.code,
    bx: slice.address + BigInt(L.HEADER_SIZE),
    r13: slice.address,
    ax: 0n,
    orig_ax: NO_SYSCALL,
  });
}

/** Whoever was set going has to be waited for: nothing can be done to it before it stands still. */
function waitForEnd(actor: Actor, title: string): void {
  for (;;) {
    const status = insist(() => waitFor(actor.tid));
    if (insist(() => atEnd(actor, status, title))) return;
  }
}

/**
 * A stop on the way that is not the one waited for: a group stop or an interrupt that was already coming, or a SIGSTOP,
 * which is remembered. The task is to be resumed.
 */
export function isPassing(tid: number, status: WaitStatus): boolean {
  if (status.kind !== 'stopped') return false;
  if (status.event !== 0) return true;
  if (status.signal !== SIGSTOP) return false;
  rememberStop(tid);
  return true;
}

/**
 * The loop notes where it stopped before it sends the signal. A stop without that was somebody else's signal of the
 * same number; it would have been ignored, so the tape simply goes on.
 */
function collect(actor: Actor, tape: Tape, found: Uint8Array | undefined): Played {
  for (let bytes = found; ; bytes = undefined) {
    const played = new Played(tape, bytes ?? readRemote(actor.tid, actor.slice.address, tape.size));
    if (stoppedAt(played) !== 0n) return played;
    ptrace.resume(actor.tid);
    waitForEnd(actor, tape.title);
  }
}

function stoppedAt({ bytes }: Played): bigint {
  return new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(L.HEADER.stoppedAt, true);
}

function throwIfShort(actor: Actor, played: Played | undefined): void {
  if (played === undefined) return;
  const index = Number(stoppedAt(played) - actor.slice.address - BigInt(L.HEADER_SIZE)) / L.ENTRY_SIZE;
  if (index !== played.tape.entries.length) throw new TapeError(actor, played, index);
}
