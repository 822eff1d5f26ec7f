import { readSync } from 'node:fs';
import { POLLHUP, POLLIN, POLLOUT, POLLPRI } from '../../abi/event.js';
import { F_SETPIPE_SZ, O_CLOEXEC, O_NONBLOCK, SPLICE_F_NONBLOCK } from '../../abi/fcntl.js';
import {
  FIONREAD,
  TCOOFF,
  TCOON,
  TCSETS2,
  TCXONC,
  TIOCGPKT,
  TIOCPKT,
  TIOCSLCKTRMIOS,
} from '../../abi/ioctl.js';
import { ICANON, IXON, TERMIOS_AT, VEOL, VEOL2, VSTOP } from '../../abi/termios.js';
import { OwnedFd } from '../../kernel/fd.js';
import { scratch } from '../../kernel/memory.js';
import { pollNow } from '../../kernel/poll.js';
import { attempt, sleep_us, syscall } from '../../kernel/syscall.js';
import type { DumpContext, Refusal } from '../contract.js';
import { fcntl } from '../description/calls.js';
import {
  flagOf,
  lflagOf,
  type Marks,
  rawTermios,
  readLocked,
  readTermios,
  refillTermios,
} from './tty-settings.js';
import { type PutBack, putBackDuty, putBackNow } from './tty-undo.js';

/**
 * What waits in a pair, in both directions. It can only be had by reading it, so it is moved into a pipe by splice(2),
 * looked at there by tee(2), and put back at once. At any moment a byte is in the terminal or in the pipe, and the
 * guardian, which takes the pipe from us when we die, puts back what is in it.
 *
 * A slave that takes lines would give lines only, and keep one that is not complete: it reads raw meanwhile.
 * What the line discipline had not room for lies before it, unprocessed; it is told apart as `untreated`.
 */
export interface Unread {
  /** For readers of the slave. */
  readonly input: Uint8Array;
  /** So many bytes at the end of `input` were not seen by the line discipline. */
  readonly untreated: number;
  /** For readers of the master. */
  readonly output: Uint8Array;
  /** Output was stopped by ^S or TCXONC. */
  readonly stopped: boolean;
}

/** Descriptors of this process. */
export interface Pair {
  readonly name: string;
  readonly master: number;
  readonly slave: number;
}

export interface Pipe {
  readonly read: number;
  readonly write: number;
}

/** The room of a pipe, far more than a pair holds (two buffers of 8 KiB and N_TTY_BUF_SIZE each way). */
const PIPE_SIZE = 1 << 18;
const MOVE_MAX = 1 << 16;
const ROUNDS_MAX = 1000;
const NO_MARKS: Marks = { eof: 0, stop: 0, start: 0 };

/** What is waiting; undefined if nothing can be, and nothing had to be touched to know it. */
export function takeUnread(pair: Pair, context: DumpContext): Unread | undefined {
  const termios = readTermios(pair.slave);
  const locked = readLocked(pair.slave);
  if (termios === undefined || locked === undefined) return undefined;
  const takesLines = (lflagOf(termios) & ICANON) !== 0;
  if (!takesLines && waiting(pair.slave) === 0 && waiting(pair.master) === 0 && isWritable(pair.slave))
    return undefined;
  const packet = flagOf(pair.master, TIOCGPKT);
  if (packet && (poll(pair.master) & POLLPRI) !== 0) context.retry(busy(pair));
  using input = new OwnPipe();
  using output = new OwnPipe();
  const settings = { termios, locked, packet };
  const duty = { pair, input: input.ends, output: output.ends, ...settings };
  const seems = { stopped: !isWritable(pair.slave) && waiting(pair.master) < LINE_DISCIPLINE_MAX };
  const first: PutBack = { ...duty, ...seems, drain: true, treated: 0, marks: NO_MARKS };
  let undo: PutBack | undefined = first;
  using draining = context.undo?.((tape) => putBackDuty(tape, first));
  try {
    prepare(pair, settings);
    const treated = waiting(pair.slave);
    drain(pair.slave, input.ends);
    drain(pair.master, output.ends);
    const unread = { input: input.peek(), output: output.peek() };
    // Both tapes do the same now. From here on what was put back must not be drained again.
    const stopped = !isWritable(pair.slave);
    const marks = marksFor(unread.input.subarray(0, treated), termios);
    const second: PutBack = { ...duty, stopped, drain: false, treated, marks };
    using _putting = context.undo?.((tape) => putBackDuty(tape, second));
    draining?.[Symbol.dispose]();
    undo = second;
    if (stopped) start(pair.slave);
    putBack(pair, { ...unread, treated, settings }, { input: input.ends, output: output.ends });
    if (stopped) stop(pair, termios);
    undo = undefined;
    return { ...unread, untreated: unread.input.length - treated, stopped };
  } finally {
    // Something failed on the way.
    if (undo !== undefined) putBackNow(undo);
  }
}

interface Settings {
  readonly termios: Uint8Array;
  readonly locked: Uint8Array;
  readonly packet: boolean;
}

function prepare({ slave, master }: Pair, { termios, locked, packet }: Settings): void {
  if (locked.some((byte) => byte !== 0)) set(slave, TIOCSLCKTRMIOS, new Uint8Array(locked.length));
  if (packet) set(master, TIOCPKT, new Uint8Array(4));
  set(slave, TCSETS2, rawTermios(termios));
}

interface Pipes {
  readonly input: Pipe;
  readonly output: Pipe;
}

interface Contents {
  readonly input: Uint8Array;
  readonly output: Uint8Array;
  readonly treated: number;
  readonly settings: Settings;
}

function putBack(pair: Pair, contents: Contents, pipes: Pipes): void {
  const { termios, locked, packet } = contents.settings;
  const treated = contents.input.subarray(0, contents.treated);
  const marks = marksFor(treated, termios);
  set(pair.slave, TCSETS2, refillTermios(termios, marks));
  let at = 0;
  for (const line of marks.eof === 0 ? [treated] : splitAtNul(treated)) {
    move(pipes.input, pair.master, line.length);
    at += line.length;
    if (at < treated.length) {
      readSync(pipes.input.read, Buffer.alloc(1), 0, 1, null);
      at += 1;
      type(pair, marks.eof);
    }
  }
  if (treated.length > 0) untilTaken(pair, marks, readableOf(treated, termios));
  move(pipes.output, pair.slave, contents.output.length);
  set(pair.slave, TCSETS2, termios);
  move(pipes.input, pair.master, contents.input.length - contents.treated);
  if (locked.some((byte) => byte !== 0)) set(pair.slave, TIOCSLCKTRMIOS, locked);
  if (packet) set(pair.master, TIOCPKT, Uint8Array.of(1, 0, 0, 0));
}

/** Below N_TTY_BUF_SIZE: so much, and a little more, the line discipline takes at once. */
export const LINE_DISCIPLINE_MAX = 4000;

/** Where lines are taken, a NUL that waits is the end of a file. */
export function marksFor(input: Uint8Array, termios: Uint8Array): Marks {
  const used = new Set([0, ...input, ...lineEnds(termios)]);
  const [eof = 0, stop = 0, start = 0] = Array.from({ length: 256 }, (_, byte) => byte).filter(
    (byte) => !used.has(byte),
  );
  const hasEnds = (lflagOf(termios) & ICANON) !== 0 && input.includes(0);
  const hasRoom = start !== 0 && input.length <= LINE_DISCIPLINE_MAX;
  return { eof: hasEnds ? eof : 0, stop: hasRoom ? stop : 0, start: hasRoom ? start : 0 };
}

function lineEnds(termios: Uint8Array): number[] {
  const at = (character: number): number => termios[TERMIOS_AT.characters + character] ?? 0;
  return [0x0a, at(VEOL), at(VEOL2)].filter((byte) => byte !== 0);
}

function splitAtNul(bytes: Uint8Array): Uint8Array[] {
  const lines: Uint8Array[] = [];
  let from = 0;
  for (let at = bytes.indexOf(0); at >= 0; at = bytes.indexOf(0, from)) {
    lines.push(bytes.subarray(from, at));
    from = at + 1;
  }
  return [...lines, bytes.subarray(from)];
}

/** What FIONREAD says of it (drivers/tty/n_tty.c inq_canon): complete lines only, ends of files do not count. */
export function readableOf(input: Uint8Array, termios: Uint8Array): number {
  if ((lflagOf(termios) & ICANON) === 0) return input.length;
  const ends = [0, ...lineEnds(termios)];
  const last = Math.max(...ends.map((end) => input.lastIndexOf(end)));
  return input.subarray(0, last + 1).filter((byte) => byte !== 0).length;
}

/**
 * The line discipline gets what was written from a worker of the kernel (drivers/tty/tty_buffer.c flush_to_ldisc), and
 * nothing waits for that where lines wait already. What stops output comes after all that.
 */
function untilTaken(pair: Pair, { stop, start }: Marks, count: number): void {
  const { slave, name } = pair;
  if (stop === 0) {
    until(() => waiting(slave) >= count, name);
    return;
  }
  type(pair, stop);
  until(() => !isWritable(slave), name);
  type(pair, start);
  until(() => isWritable(slave), name);
}

function type({ master, name }: Pair, byte: number): void {
  scratch.bytes[0] = byte;
  syscall('write', [master, scratch.address, 1], name);
}

function until(condition: () => boolean, name: string): void {
  for (let round = 0; !condition(); round++) {
    if (round > ROUNDS_MAX) throw new Error(`${name}: what waited in it does not come back`);
    sleep_us(round < 50 ? 50 : 5000);
  }
}

function poll(fd: number): number {
  return pollNow(fd, POLLIN | POLLPRI | POLLOUT);
}

/** Was the last description of the other side closed? A slave that was never open is not closed. */
export function isHungUp(fd: number): boolean {
  return (poll(fd) & POLLHUP) !== 0;
}

/** A terminal with room in its queue that still cannot be written to has been stopped (pty_write_room). */
function isWritable(fd: number): boolean {
  return (poll(fd) & POLLOUT) !== 0;
}

/** Bytes a reader could have, after what is on its way arrived: poll(2) of an empty one waits for that. */
export function waiting(fd: number): number {
  poll(fd);
  return attempt('ioctl', [fd, FIONREAD, scratch.address]) < 0 ? 0 : scratch.view.getInt32(0, true);
}

function drain(fd: number, pipe: Pipe): void {
  for (let round = 0; waiting(fd) > 0; round++) {
    if (round > ROUNDS_MAX) throw new Error('a terminal that nobody writes to does not become empty');
    syscall('splice', [fd, 0, pipe.write, 0, MOVE_MAX, SPLICE_F_NONBLOCK], 'a terminal');
  }
}

/** It was there before, so it has room there, once the line discipline took what it takes. */
function move(pipe: Pipe, to: number, length: number): void {
  for (let left = length; left > 0; ) {
    until(() => isWritable(to), 'a terminal');
    left -= syscall('splice', [pipe.read, 0, to, 0, Math.min(left, PIECE), SPLICE_F_NONBLOCK], 'a terminal');
  }
}

const PIECE = 2048;

/** ^S is undone by ^Q only: a stop by TCXONC in its place can be undone by TCXONC (tty_ioctl.c, tty_io.c __start_tty). */
function start(fd: number): void {
  syscall('ioctl', [fd, TCXONC, TCOOFF], 'a terminal');
  syscall('ioctl', [fd, TCXONC, TCOON], 'a terminal');
}

/** As ^S does, where it does; then ^Q starts it again. */
function stop(pair: Pair, termios: Uint8Array): void {
  const byte = stopByte(termios);
  if (byte === 0) syscall('ioctl', [pair.slave, TCXONC, TCOOFF], pair.name);
  else type(pair, byte);
}

/** The character that stops output, 0 where none does. */
export function stopByte(termios: Uint8Array): number {
  const iflag = new DataView(termios.buffer, termios.byteOffset).getUint32(TERMIOS_AT.iflag, true);
  return (iflag & IXON) === 0 ? 0 : (termios[TERMIOS_AT.characters + VSTOP] ?? 0);
}

function set(fd: number, request: number, bytes: Uint8Array): void {
  scratch.bytes.set(bytes);
  syscall('ioctl', [fd, request, scratch.address], 'a terminal');
}

function busy({ name }: Pair): Refusal {
  return {
    task: 'the tree',
    object: name,
    reason: 'the status of a pair in packet mode waits to be read, and could not be put back',
  };
}

class OwnPipe implements Disposable {
  readonly #read: OwnedFd;
  readonly #write: OwnedFd;

  constructor() {
    syscall('pipe2', [scratch.address, O_CLOEXEC | O_NONBLOCK]);
    this.#read = new OwnedFd(scratch.view.getInt32(0, true));
    this.#write = new OwnedFd(scratch.view.getInt32(4, true));
    fcntl(this.#write.fd, F_SETPIPE_SZ, PIPE_SIZE);
  }

  get ends(): Pipe {
    return { read: this.#read.fd, write: this.#write.fd };
  }

  /** What is in it; it stays there. */
  peek(): Uint8Array {
    using copy = new OwnPipe();
    const length = attempt('tee', [this.#read.fd, copy.ends.write, PIPE_SIZE, SPLICE_F_NONBLOCK]);
    if (length <= 0) return new Uint8Array();
    const bytes = Buffer.alloc(length);
    for (let at = 0; at < length; at += readSync(copy.ends.read, bytes, at, length - at, null));
    return bytes;
  }

  [Symbol.dispose](): void {
    this.#read[Symbol.dispose]();
    this.#write[Symbol.dispose]();
  }
}
