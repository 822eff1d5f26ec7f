import { create } from '@bufbuild/protobuf';
import * as I from '../../abi/ioctl.js';
import * as T from '../../abi/termios.js';
import {
  type termios_entry,
  termios_entrySchema,
  type winsize_entry,
  winsize_entrySchema,
} from '../../image/index.js';
import { scratch } from '../../kernel/memory.js';
import { attempt } from '../../kernel/syscall.js';
import type { Result, Tape } from '../contract.js';

/**
 * Settings of a terminal: ioctl_tty(2). Asked of a master they are those of its slave (drivers/tty/tty_ioctl.c
 * tty_mode_ioctl).
 */
export function flagOf(fd: number, request: number): boolean {
  return attempt('ioctl', [fd, request, scratch.address]) >= 0 && scratch.view.getInt32(0, true) !== 0;
}

/** struct termios2; undefined where the terminal was hung up (EIO). */
export function readTermios(fd: number): Uint8Array | undefined {
  if (attempt('ioctl', [fd, I.TCGETS2, scratch.address]) < 0) return undefined;
  return Uint8Array.from(scratch.bytes.subarray(0, T.TERMIOS2_SIZE));
}

/** struct termios: which settings are locked. */
export function readLocked(fd: number): Uint8Array | undefined {
  scratch.bytes.fill(0, 0, T.TERMIOS2_SIZE);
  if (attempt('ioctl', [fd, I.TIOCGLCKTRMIOS, scratch.address]) < 0) return undefined;
  return Uint8Array.from(scratch.bytes.subarray(0, T.TERMIOS2_SIZE));
}

export function readWindow(fd: number): winsize_entry | undefined {
  if (attempt('ioctl', [fd, I.TIOCGWINSZ, scratch.address]) < 0) return undefined;
  const [wsRow = 0, wsCol = 0, wsXpixel = 0, wsYpixel = 0] = [0, 2, 4, 6].map((at) =>
    scratch.view.getUint16(at, true),
  );
  return create(winsize_entrySchema, { wsRow, wsCol, wsXpixel, wsYpixel });
}

/** The image has the 19 characters four to a number, as many numbers as characters, zeros at the end. */
export function entryOfTermios(bytes: Uint8Array): termios_entry {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const characters = new DataView(new ArrayBuffer(T.NCCS * 4));
  for (let at = 0; at < T.NCCS; at++) characters.setUint8(at, view.getUint8(T.TERMIOS_AT.characters + at));
  return create(termios_entrySchema, {
    cIflag: view.getUint32(T.TERMIOS_AT.iflag, true),
    cOflag: view.getUint32(T.TERMIOS_AT.oflag, true),
    cCflag: view.getUint32(T.TERMIOS_AT.cflag, true),
    cLflag: view.getUint32(T.TERMIOS_AT.lflag, true),
    cLine: view.getUint8(T.TERMIOS_AT.line),
    cIspeed: view.getUint32(T.TERMIOS_AT.ispeed, true),
    cOspeed: view.getUint32(T.TERMIOS_AT.ospeed, true),
    cCc: Array.from({ length: T.NCCS }, (_, index) => characters.getUint32(index * 4, true)),
  });
}

export function bytesOfTermios(entry: termios_entry): Uint8Array {
  const bytes = new Uint8Array(T.TERMIOS2_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(T.TERMIOS_AT.iflag, entry.cIflag, true);
  view.setUint32(T.TERMIOS_AT.oflag, entry.cOflag, true);
  view.setUint32(T.TERMIOS_AT.cflag, entry.cCflag, true);
  view.setUint32(T.TERMIOS_AT.lflag, entry.cLflag, true);
  view.setUint8(T.TERMIOS_AT.line, entry.cLine);
  for (let at = 0; at < T.NCCS; at++)
    view.setUint8(T.TERMIOS_AT.characters + at, ((entry.cCc[at >> 2] ?? 0) >>> ((at & 3) * 8)) & 0xff);
  view.setUint32(T.TERMIOS_AT.ispeed, entry.cIspeed, true);
  view.setUint32(T.TERMIOS_AT.ospeed, entry.cOspeed, true);
  return bytes;
}

/** The request that sets them: speeds count where c_cflag says that they are of no standard kind; CRIU has none. */
function setterOf(termios: Uint8Array): number {
  const cflag = new DataView(termios.buffer, termios.byteOffset).getUint32(T.TERMIOS_AT.cflag, true);
  const codes = [cflag & T.CBAUD, (cflag >>> T.IBSHIFT) & T.CBAUD];
  return codes.includes(T.BOTHER) ? I.TCSETS2 : I.TCSETS;
}

export function lflagOf(termios: Uint8Array): number {
  return new DataView(termios.buffer, termios.byteOffset).getUint32(T.TERMIOS_AT.lflag, true);
}

/** Nothing is processed, and a read of nothing answers at once. */
export function rawTermios(termios: Uint8Array): Uint8Array {
  return changed(termios, (view) => {
    quiet(view);
    view.setUint32(T.TERMIOS_AT.lflag, lflagOf(termios) & T.EXTPROC, true);
    view.setUint8(T.TERMIOS_AT.characters + T.VMIN, 0);
    view.setUint8(T.TERMIOS_AT.characters + T.VTIME, 0);
  });
}

/** Bytes with a meaning while a terminal is filled, that do not occur in what it is filled with; 0 where there is none. */
export interface Marks {
  /** Ends a line, and is not part of it. */
  readonly eof: number;
  /** Stops output, which shows that all that was written before was taken; and starts it. */
  readonly stop: number;
  readonly start: number;
}

/**
 * What is written to the master is taken as it is, and as lines if the terminal takes lines: turning that on over
 * bytes that wait would make one line of them (drivers/tty/n_tty.c n_tty_set_termios).
 */
export function refillTermios(termios: Uint8Array, { eof, stop, start }: Marks): Uint8Array {
  return changed(termios, (view) => {
    quiet(view);
    const iflag = view.getUint32(T.TERMIOS_AT.iflag, true);
    if (stop !== 0) view.setUint32(T.TERMIOS_AT.iflag, iflag | T.IXON, true);
    view.setUint32(T.TERMIOS_AT.lflag, lflagOf(termios) & (T.ICANON | T.IEXTEN | T.EXTPROC), true);
    const set = (character: number, byte: number): void =>
      view.setUint8(T.TERMIOS_AT.characters + character, byte);
    for (const character of [T.VERASE, T.VKILL, T.VREPRINT, T.VWERASE, T.VLNEXT]) set(character, 0);
    set(T.VEOF, eof);
    set(T.VSTOP, stop);
    set(T.VSTART, start);
  });
}

/** Turning IXON off would start output that was stopped (n_tty_set_termios), so only its characters go. */
function quiet(view: DataView): void {
  view.setUint32(T.TERMIOS_AT.iflag, view.getUint32(T.TERMIOS_AT.iflag, true) & T.IXON, true);
  view.setUint8(T.TERMIOS_AT.characters + T.VSTART, 0);
  view.setUint8(T.TERMIOS_AT.characters + T.VSTOP, 0);
  view.setUint32(T.TERMIOS_AT.oflag, 0, true);
}

function changed(termios: Uint8Array, change: (view: DataView) => void): Uint8Array {
  const bytes = Uint8Array.from(termios);
  change(new DataView(bytes.buffer));
  return bytes;
}

/** Entries that set them, on a master or slave. */
export function setTermios(tape: Tape, fd: Result | number, termios: Uint8Array): void {
  tape.call('ioctl', [fd, setterOf(termios), tape.space(termios)]);
}

export function setLocked(tape: Tape, fd: Result | number, entry: termios_entry): void {
  tape.call('ioctl', [fd, I.TIOCSLCKTRMIOS, tape.space(bytesOfTermios(entry))]);
}

export function setWindow(tape: Tape, fd: Result | number, window: winsize_entry): void {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  [window.wsRow, window.wsCol, window.wsXpixel, window.wsYpixel].forEach((value, index) => {
    view.setUint16(index * 2, value, true);
  });
  tape.call('ioctl', [fd, I.TIOCSWINSZ, tape.space(bytes)]);
}
