import { POLLIN, POLLOUT } from '../../abi/event.js';
import { SPLICE_F_NONBLOCK } from '../../abi/fcntl.js';
import { TCOOFF, TCOON, TCSETS2, TCXONC, TIOCPKT, TIOCSLCKTRMIOS } from '../../abi/ioctl.js';
import { ICANON } from '../../abi/termios.js';
import { insist } from '../../kernel/insist.js';
import { go, goIfEqual, repeat } from '../../tape/logic.js';
import { playOne } from '../../tape/play.js';
import { endStem, startStem } from '../../tape/stem.js';
import { type Space, Tape } from '../../tape/tape.js';
import type { Result } from '../contract.js';
import { lflagOf, type Marks, rawTermios, refillTermios } from './tty-settings.js';
import { marksFor, type Pair, type Pipe, stopByte } from './tty-unread.js';

/** What the guardian needs to know; all descriptors are this process's, which has them until it is gone. */
export interface PutBack {
  readonly pair: Pair;
  readonly input: Pipe;
  readonly output: Pipe;
  readonly termios: Uint8Array;
  readonly locked: Uint8Array;
  readonly packet: boolean;
  /** Take out what is left first, so that the order stays as it was. */
  readonly drain: boolean;
  /** How much of `input` the line discipline had seen; 0 for all. */
  readonly treated: number;
  /** What a byte that is just on its way means. */
  readonly marks: Marks;
  /** Output is to be stopped in the end. */
  readonly stopped: boolean;
}

const ROUNDS = 12;
const ALL = 1 << 16;
const PIECE = 2048;
/** For the kernel's worker to give the line discipline its part. */
const SETTLE_MS = 20;

/**
 * Entries for the guardian, when we have died between taking and putting back: it takes the pipes and the terminal
 * from us (we stand still at our exit) and puts back what the pipes hold.
 */
export function putBackDuty(tape: Tape, duty: PutBack): void {
  const { termios } = duty;
  tape.about(`put back what waited in ${duty.pair.name}`);
  const us = tape.call('pidfd_open', [process.pid, 0], 'any');
  const take = (fd: number): Result => tape.call('pidfd_getfd', [us, fd, 0], 'any');
  const [slave, master] = [take(duty.pair.slave), take(duty.pair.master)];
  const [input, output] = [take(duty.input.read), take(duty.output.read)];
  const set = (fd: Result, request: number, bytes: Uint8Array): void => {
    tape.call('ioctl', [fd, request, tape.space(bytes)], 'any');
  };
  if (duty.drain) {
    set(slave, TIOCSLCKTRMIOS, new Uint8Array(duty.locked.length));
    if (duty.packet) set(master, TIOCPKT, new Uint8Array(4));
    set(slave, TCSETS2, rawTermios(termios));
    drain(tape, slave, take(duty.input.write));
    drain(tape, master, take(duty.output.write));
  }
  set(slave, TCSETS2, refillTermios(termios, duty.marks));
  tape.call('poll', [0, 0, SETTLE_MS], 'any');
  // Stopped by the program, or by us to see that what was written before was taken.
  tape.call('ioctl', [slave, TCXONC, TCOOFF], 'any');
  tape.call('ioctl', [slave, TCXONC, TCOON], 'any');
  move(tape, output, slave);
  if (hasLines(duty)) retype(tape, duty, { input, master, slave });
  else if (duty.treated > 0) splice(tape, input, master, duty.treated);
  else move(tape, input, master);
  tape.call('poll', [0, 0, SETTLE_MS], 'any');
  set(slave, TCSETS2, termios);
  move(tape, input, master);
  set(slave, TIOCSLCKTRMIOS, duty.locked);
  if (duty.packet) set(master, TIOCPKT, Uint8Array.of(1, 0, 0, 0));
  if (duty.stopped) stop(tape, slave, master, termios);
}

/** May there be ends of files in what the line discipline had seen? */
function hasLines({ termios, drain, marks }: PutBack): boolean {
  return (lflagOf(termios) & ICANON) !== 0 && (drain || marks.eof !== 0);
}

/** What the line discipline has room for (N_TTY_BUF_SIZE), one less where lines are taken. */
const TREATED_MAX = 4095;

/**
 * Byte by byte, for the bytes are in a pipe that nobody has looked into: a NUL was the end of a file. That is typed as a
 * character which has the meaning just then, for it may have another before and after.
 */
function retype(
  tape: Tape,
  { termios, marks, treated }: PutBack,
  { input, master, slave }: Readonly<Record<'input' | 'master' | 'slave', Result>>,
): void {
  const byte = tape.space(4);
  const [done, isThere, hasRoom] = [
    tape.label(),
    pollable(tape, input, POLLIN),
    pollable(tape, master, POLLOUT),
  ];
  const plain = tape.space(refillTermios(termios, marks));
  const { eof } = marksFor(Uint8Array.of(0, marks.stop, marks.start), termios);
  const ending = tape.space(refillTermios(termios, { ...marks, eof }));
  const end = tape.space(Uint8Array.of(eof));
  repeat(tape, treated === 0 ? TREATED_MAX : Math.min(treated, TREATED_MAX), () => {
    const [isEnd, next] = [tape.label(), tape.label()];
    tape.jump('poll', [isThere, 1, 0], done);
    tape.jump('poll', [hasRoom, 1, SETTLE_MS], done);
    tape.call('read', [input, byte, 1], 'any');
    goIfEqual(tape, byte, 0, isEnd);
    tape.call('write', [master, byte, 1], 'any');
    go(tape, next);
    tape.place(isEnd);
    tape.call('poll', [0, 0, SETTLE_MS], 'any');
    tape.call('ioctl', [slave, TCSETS2, ending], 'any');
    tape.call('write', [master, end, 1], 'any');
    tape.call('poll', [0, 0, SETTLE_MS], 'any');
    tape.call('ioctl', [slave, TCSETS2, plain], 'any');
    tape.place(next);
  });
  tape.place(done);
}

function pollable(tape: Tape, fd: Result, event: number): Space {
  const events = tape.space(Uint8Array.of(0, 0, 0, 0, event, 0, 0, 0));
  tape.copy(fd, events, 0);
  return events;
}

/** The same, while we live. */
export function putBackNow(duty: PutBack): void {
  insist(() => {
    const actor = startStem({ workspace: WORKSPACE, sliceSize: SLICE, name: 'what puts back' });
    try {
      const tape = new Tape(`what waited in ${duty.pair.name}`);
      putBackDuty(tape, duty);
      playOne(actor, tape);
    } finally {
      endStem(actor.tid);
    }
  });
}

const WORKSPACE = { address: 0x1000_0000_0000n, size: 0x20_0000n };
const SLICE = 0x10_0000;

function stop(tape: Tape, slave: Result, master: Result, termios: Uint8Array): void {
  const byte = stopByte(termios);
  if (byte === 0) tape.call('ioctl', [slave, TCXONC, TCOOFF], 'any');
  else tape.call('write', [master, tape.space(Uint8Array.of(byte)), 1], 'any');
}

/** As long as poll(2) says that there is something, which also waits for what is on its way. */
function drain(tape: Tape, from: Result, to: Result): void {
  whilePolled(tape, from, POLLIN, 0, () => splice(tape, from, to, ALL));
}

/** Never more than there is room for: to wait for room could be to wait for ever. */
function move(tape: Tape, from: Result, to: Result): void {
  whilePolled(tape, to, POLLOUT, SETTLE_MS, () => splice(tape, from, to, PIECE));
}

function whilePolled(tape: Tape, fd: Result, event: number, timeout_ms: number, entries: () => void): void {
  const events = pollable(tape, fd, event);
  const done = tape.label();
  for (let round = 0; round < ROUNDS; round++) {
    tape.jump('poll', [events, 1, timeout_ms], done);
    entries();
  }
  tape.place(done);
}

function splice(tape: Tape, from: Result, to: Result, length: number): void {
  tape.call('splice', [from, 0, to, 0, length, SPLICE_F_NONBLOCK], 'any');
}
