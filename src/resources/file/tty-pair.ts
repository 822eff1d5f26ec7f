import { ERRNO } from '../../abi/errno.js';
import { POLLOUT } from '../../abi/event.js';
import { F_DUPFD_CLOEXEC, O_CLOEXEC, O_LARGEFILE, O_NOCTTY, O_RDWR } from '../../abi/fcntl.js';
import * as I from '../../abi/ioctl.js';
import { go, goIfEqual, insistEqual } from '../../tape/logic.js';
import type { Holder, Tape } from '../contract.js';
import { perRestore } from '../description/state.js';
import { extrasOf } from './tty-extras.js';
import { type ImagePair, type Open, pathOf } from './tty-image.js';
import {
  bytesOfTermios,
  type Marks,
  refillTermios,
  setLocked,
  setTermios,
  setWindow,
} from './tty-settings.js';
import { LINE_DISCIPLINE_MAX, marksFor, readableOf, stopByte } from './tty-unread.js';

/** Pairs on the holder's tape. Keys: `pty:N` is a master, `pts:N` a slave that goes with the holder. */
export const masterKey = (index: number): string => `pty:${index}`;
const slaveKey = (index: number): string => `pts:${index}`;

/**
 * Indices are given out lowest first (fs/devpts/inode.c devpts_new_index), so masters are opened until one has the
 * index of the image; the others are put out of the way above all slots in use, and closed when all pairs are there.
 */
export function openMasters(pairs: readonly ImagePair[], holder: Holder): void {
  const { tape } = holder;
  for (const { index } of pairs) holder.slot(masterKey(index));
  const above = holder.slot('spare terminals');
  for (const { index, master } of pairs) {
    tape.about(`terminal /dev/pts/${index}, whose number has to be free`);
    tape.call('access', [tape.string(`/dev/pts/${index}`), 0], -ERRNO.ENOENT);
    const path = master === undefined ? '/dev/ptmx' : pathOf(master);
    const flags = (master?.tty.flags ?? O_RDWR) | O_NOCTTY | O_CLOEXEC;
    const number = tape.space(4);
    const [again, found] = [tape.label(), tape.label()];
    tape.place(again);
    const fd = tape.call('open', [tape.string(path), flags, 0]);
    tape.call('ioctl', [fd, I.TIOCGPTN, number]);
    goIfEqual(tape, number, index, found);
    tape.call('fcntl', [fd, F_DUPFD_CLOEXEC, above]);
    tape.call('close', [fd]);
    go(tape, again);
    tape.place(found);
    holder.hold(masterKey(index), fd);
    tape.call('ioctl', [holder.slot(masterKey(index)), I.TIOCSPTLCK, tape.space(4)]);
  }
  tape.about('spare terminals');
  tape.call('close_range', [above, 0xffff_ffff, 0]);
}

/** Everything of a pair whose master is in its slot; descriptions go to their slots. */
export function rebuildPair(pair: ImagePair, holder: Holder): void {
  const { index, master, settings } = pair;
  const { tape } = holder;
  tape.about(`terminal /dev/pts/${index}`);
  const slot = holder.slot(masterKey(index));
  for (const open of pair.hungUp) openSlave(open, index, holder);
  if (master === undefined) {
    // Closing a master hangs its slaves up (drivers/tty/pty.c pty_close).
    tape.call('close', [slot]);
    return;
  }
  if (pair.hungUp.length > 0) {
    const slave = tape.call('ioctl', [slot, I.TIOCGPTPEER, WORKING]);
    tape.call('ioctl', [slave, I.TIOCVHANGUP, 0]);
    tape.call('close', [slave]);
  }
  restoreOwner(pair, holder);
  const output = dataOf(holder).get(index * 2 + 1);
  const isClosed = extrasOf(holder).pairs[index]?.closed ?? !master.info.locked;
  const input = dataOf(holder).get(index * 2);
  if (pair.slaves.length > 0 || isClosed || output !== undefined || input !== undefined) {
    holder.hold(slaveKey(index), tape.call('ioctl', [slot, I.TIOCGPTPEER, WORKING]));
    tape.about(`terminal /dev/pts/${index}`);
  }
  if (settings?.termios !== undefined) fill(index, bytesOfTermios(settings.termios), holder);
  if (settings?.termiosLocked !== undefined) setLocked(tape, slot, settings.termiosLocked);
  if (settings?.winsize !== undefined) setWindow(tape, slot, settings.winsize);
  for (const open of pair.slaves) openSide(open, index, holder);
  modes(pair, holder);
  holder.hold(`file:${master.id}`, tape.call('dup', [slot]));
}

const WORKING = O_RDWR | O_NOCTTY | O_CLOEXEC;

/** Owner and mode of the slave. Images of CRIU say nothing of one that is not open. */
function restoreOwner({ index, slaves }: ImagePair, holder: Holder): void {
  const { tape } = holder;
  const open = slaves.find(({ info }) => info.pty !== undefined);
  const owner =
    open?.mode === undefined
      ? extrasOf(holder).pairs[index]?.owner
      : { uid: open.info.uid, gid: open.info.gid, mode: open.mode & 0o7777 };
  if (owner === undefined) return;
  const path = tape.string(`/dev/pts/${index}`);
  tape.call('chown', [path, owner.uid, owner.gid]);
  tape.call('chmod', [path, owner.mode]);
}

const dataOf = perRestore(
  ({ reader }) => new Map((reader.readOptional('tty-data') ?? []).map(({ ttyId, data }) => [ttyId, data])),
);

/** What waited in both directions, and the settings, which must not meet what the line discipline had seen already. */
function fill(index: number, termios: Uint8Array, holder: Holder): void {
  const { tape } = holder;
  const master = holder.slot(masterKey(index));
  const input = dataOf(holder).get(index * 2) ?? new Uint8Array();
  const output = dataOf(holder).get(index * 2 + 1) ?? new Uint8Array();
  const { untreated = 0, stopped = false } = extrasOf(holder).pairs[index] ?? {};
  const treated = input.subarray(0, input.length - untreated);
  if (treated.length + output.length > 0) {
    const marks = marksFor(treated, termios);
    setTermios(tape, master, refillTermios(termios, marks));
    const bytes = marks.eof === 0 ? treated : treated.map((byte) => (byte === 0 ? marks.eof : byte));
    write(tape, master, bytes);
    if (treated.length > 0) untilTaken(index, marks, readableOf(treated, termios), holder);
    const first = output.subarray(0, LINE_DISCIPLINE_MAX);
    write(tape, slaveOf(index, holder), first);
    if (first.length < output.length) {
      waitFor(tape, master, first.length);
      write(tape, slaveOf(index, holder), output.subarray(first.length));
    }
  }
  setTermios(tape, master, termios);
  write(tape, master, input.subarray(treated.length));
  if (stopped) stop(index, termios, holder);
}

function slaveOf(index: number, holder: Holder): number {
  return holder.slot(slaveKey(index));
}

function stop(index: number, termios: Uint8Array, holder: Holder): void {
  const byte = stopByte(termios);
  if (byte === 0) holder.tape.call('ioctl', [slaveOf(index, holder), I.TCXONC, I.TCOOFF]);
  else write(holder.tape, holder.slot(masterKey(index)), Uint8Array.of(byte));
}

function write(tape: Tape, fd: number, bytes: Uint8Array): void {
  if (bytes.length > 0) tape.call('write', [fd, tape.space(bytes), bytes.length], bytes.length);
}

/** As tty-unread.ts does for a living pair: output stops after all before was taken. */
function untilTaken(index: number, { stop, start }: Marks, count: number, holder: Holder): void {
  const { tape } = holder;
  const [master, slave] = [holder.slot(masterKey(index)), slaveOf(index, holder)];
  if (stop === 0) {
    waitFor(tape, slave, count);
    return;
  }
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setInt32(0, slave, true);
  bytes[4] = POLLOUT;
  const pollfd = tape.space(bytes);
  write(tape, master, Uint8Array.of(stop));
  const stopped = tape.label();
  for (const pause_ms of PAUSES_MS) {
    tape.jump('poll', [pollfd, 1, 0], stopped);
    tape.call('poll', [0, 0, pause_ms], 'any');
  }
  tape.call('poll', [pollfd, 1, 0], 0);
  tape.place(stopped);
  write(tape, master, Uint8Array.of(start));
  tape.call('poll', [pollfd, 1, START_TIMEOUT_MS], 1);
}

const START_TIMEOUT_MS = 10_000;

/** A worker of the kernel hands what was written to the line discipline (drivers/tty/tty_buffer.c flush_to_ldisc). */
const PAUSES_MS = [0, 1, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000];

function waitFor(tape: Tape, fd: number, count: number): void {
  const there = tape.space(4);
  const done = tape.label();
  for (const pause_ms of PAUSES_MS) {
    tape.call('poll', [0, 0, pause_ms], 'any');
    tape.call('ioctl', [fd, I.FIONREAD, there]);
    goIfEqual(tape, there, count, done);
  }
  insistEqual(tape, there, count);
  tape.place(done);
}

/** By its name, unless it was opened by TIOCGPTPEER, as openpty(3) does: only open(2) adds O_LARGEFILE. */
function openSlave(open: Open, index: number, holder: Holder): void {
  const { tape } = holder;
  const flags = open.tty.flags | O_NOCTTY;
  const isPeer = (flags & O_LARGEFILE) === 0 && open.name === `/dev/pts/${index}`;
  const fd = isPeer
    ? tape.call('ioctl', [holder.slot(masterKey(index)), I.TIOCGPTPEER, flags])
    : tape.call('open', [tape.string(pathOf(open)), flags, 0]);
  holder.hold(`file:${open.id}`, fd);
}

/**
 * A slave, or /dev/tty, which is what controls the session of whoever opens it: the holder has it for that moment.
 * Giving it up sends SIGHUP to the holder's group, which is the holder, and blocks it.
 */
function openSide(open: Open, index: number, holder: Holder): void {
  const { tape } = holder;
  if (open.info.pty !== undefined) {
    openSlave(open, index, holder);
    return;
  }
  const state = leading(holder);
  if (!state.done) tape.call('setsid', []);
  state.done = true;
  tape.call('ioctl', [holder.slot(masterKey(index)), I.TIOCSCTTY, 0]);
  openSlave(open, index, holder);
  tape.call('ioctl', [holder.slot(`file:${open.id}`), I.TIOCNOTTY, 0]);
}

const leading = perRestore(() => ({ done: false }));

/** What would be in the way of opening the rest, or of its settings. */
function modes({ index, master, slaves }: ImagePair, holder: Holder): void {
  const { tape } = holder;
  const slot = holder.slot(masterKey(index));
  if (slaves.some(({ info }) => info.exclusive && info.pty !== undefined))
    tape.call('ioctl', [slaveOf(index, holder), I.TIOCEXCL, 0]);
  if (master?.info.exclusive === true) tape.call('ioctl', [slot, I.TIOCEXCL, 0]);
  const yes = Uint8Array.of(1, 0, 0, 0);
  if (master?.info.packetMode === true) tape.call('ioctl', [slot, I.TIOCPKT, tape.space(yes)]);
  if (master?.info.locked === true) tape.call('ioctl', [slot, I.TIOCSPTLCK, tape.space(yes)]);
}
