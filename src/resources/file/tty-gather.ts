import { statSync } from 'node:fs';
import { TIOCGEXCL, TIOCGPKT, TIOCGPTLCK } from '../../abi/ioctl.js';
import { createMessage, type MessageOf } from '../../image/index.js';
import type { DumpContext } from '../contract.js';
import { refuseNow } from '../description/described.js';
import { perDump } from '../description/state.js';
import {
  controllingDevice,
  deviceName,
  isMaster,
  sessionIsInside,
  slaveIndex,
  TYPE,
  typeOf,
} from './tty-device.js';
import type { FileExtras, PairExtras, TerminalExtras } from './tty-extras.js';
import { devptsDevice, type Seen, seenOf, type Terminal, terminalsOf, withSlave } from './tty-seen.js';
import { entryOfTermios, flagOf, readLocked, readTermios, readWindow } from './tty-settings.js';
import { isHungUp, takeUnread, type Unread, waiting } from './tty-unread.js';

/** What of the terminals of a frozen tree goes into the image. */
export interface Gathered {
  readonly infos: MessageOf<'tty-info'>[];
  readonly data: MessageOf<'tty-data'>[];
  readonly extras: TerminalExtras;
}

export const gatheredOf = perDump<{ value: Gathered | undefined }>(() => ({ value: undefined }));

export function gather(context: DumpContext): void {
  const all = seenOf(context);
  try {
    const terminals = terminalsOf(context);
    for (const terminal of terminals) refuseUnsavable(terminal, context);
    const pairs: Record<string, PairExtras> = {};
    const data: MessageOf<'tty-data'>[] = [];
    for (const terminal of terminals) {
      const { device, master } = terminal;
      if (typeOf(device) !== TYPE.pty || master === undefined) continue;
      const unread = unreadOf(terminal, master, context);
      const index = slaveIndex(device);
      if (unread !== undefined) data.push(...dataOf(index, unread));
      const extras = pairExtras(terminal, master, unread);
      if (Object.keys(extras).length > 0) pairs[index] = extras;
    }
    const files = fileExtras(all, terminals);
    gatheredOf(context).value = {
      infos: infosOf(all, terminals),
      data,
      extras: { pairs, files, without: withoutTerminal(terminals, context) },
    };
  } finally {
    for (const { fd } of all) fd[Symbol.dispose]();
  }
}

/** The check has said so before, unless it came to be since. */
function refuseUnsavable({ device, master, slaves, session }: Terminal, context: DumpContext): void {
  if (master !== undefined) return;
  const [seen] = slaves.filter(({ type }) => type !== TYPE.external);
  if (typeOf(device) === TYPE.pty) {
    if (seen !== undefined && (session?.isInside === true || !context.options.shellJob))
      refuseNow(context, seen.descriptor, MASTER_OUTSIDE);
  }
  if (slaves.length === 0 && session?.isInside === true)
    context.refuse({
      task: `session ${session.sid}`,
      object: `controlling terminal ${deviceName(device)}`,
      reason: `${MASTER_OUTSIDE}, and nobody in the tree has it open`,
    });
}

export const MASTER_OUTSIDE = 'it is a terminal of the tree, and who has its master is not in the tree';

function unreadOf(terminal: Terminal, master: Seen, context: DumpContext): Unread | undefined {
  const name = deviceName(terminal.device);
  const [slave] = terminal.slaves;
  const take = (fd: number): Unread | undefined =>
    takeUnread({ name, master: master.fd.fd, slave: fd }, context);
  if (slave !== undefined) return take(slave.fd.fd);
  // Its slave was closed, and is closed once more by this. One that was never open would be closed ever after.
  if (isHungUp(master.fd.fd)) return withSlave(master, context, take);
  if (waiting(master.fd.fd) > 0)
    context.retry({
      task: 'the tree',
      object: `${name} (descriptor ${master.descriptor.fd} is its master)`,
      reason: 'something waits in it, and nobody has opened its slave, without which it cannot be had',
    });
  return undefined;
}

function dataOf(index: number, { input, output }: Unread): MessageOf<'tty-data'>[] {
  const sides = [
    { ttyId: index * 2, data: input },
    { ttyId: index * 2 + 1, data: output },
  ];
  return sides.filter(({ data }) => data.length > 0).map((side) => createMessage('tty-data', side));
}

function pairExtras(
  { slaves, device, session }: Terminal,
  master: Seen,
  unread: Unread | undefined,
): PairExtras {
  const extras: { -readonly [Key in keyof PairExtras]: PairExtras[Key] } = {};
  if (slaves.every(({ type }) => type !== TYPE.pty)) {
    const stat = statSync(`/dev/pts/${slaveIndex(device)}`, { throwIfNoEntry: false });
    if (stat !== undefined && BigInt(stat.rdev) === device)
      extras.owner = { uid: stat.uid, gid: stat.gid, mode: stat.mode & 0o7777 };
  }
  if (slaves.length === 0) extras.closed = isHungUp(master.fd.fd);
  if (unread !== undefined && unread.untreated > 0) extras.untreated = unread.untreated;
  if (unread?.stopped === true) extras.stopped = true;
  if (session?.emptyGroup !== undefined) extras.foreground = session.emptyGroup;
  return extras;
}

function fileExtras(all: readonly Seen[], terminals: readonly Terminal[]): Record<string, FileExtras> {
  const files: Record<string, FileExtras> = {};
  for (const { id, type, device, pair } of all) {
    const lives = terminals.some((terminal) => terminal.master?.pair === pair);
    if (device === undefined) {
      if (type === TYPE.pty && lives) files[id] = { hungUp: true };
    } else if (type === TYPE.ctty && typeOf(device) === TYPE.pty) files[id] = { index: slaveIndex(device) };
  }
  return files;
}

/** Members of a session with a terminal who gave it up, or were there before it. */
function withoutTerminal(terminals: readonly Terminal[], { processes }: DumpContext): number[] {
  const sessions = new Set(
    terminals.flatMap(({ session }) => (session?.isInside === true ? [session.sid] : [])),
  );
  return processes
    .filter((process) => process.state !== 'zombie' && sessionIsInside(process))
    .filter((process) => controllingDevice(process) === undefined)
    .filter(({ leader }) => sessions.has(leader.status.nsSid.at(-1) ?? 0))
    .map(({ insidePid }) => insidePid);
}

/** tty-info.img: one entry a side of a terminal that is open; a description that is not hung up tells more. */
function infosOf(all: readonly Seen[], terminals: readonly Terminal[]): MessageOf<'tty-info'>[] {
  const bySide = new Map<number, Seen>();
  for (const seen of all) {
    const known = bySide.get(seen.infoId);
    if (known === undefined || (known.device === undefined && seen.device !== undefined))
      bySide.set(seen.infoId, seen);
  }
  return [...bySide.values()].map((seen) =>
    infoOf(
      seen,
      terminals.find(({ device }) => device === seen.device),
    ),
  );
}

function infoOf(seen: Seen, terminal: Terminal | undefined): MessageOf<'tty-info'> {
  const { stat } = seen.descriptor.info;
  const fd = seen.fd.fd;
  const isPair = seen.pair !== undefined && seen.type === TYPE.pty;
  const termios = readTermios(fd);
  const locked = readLocked(fd);
  const winsize = readWindow(fd);
  return createMessage('tty-info', {
    id: seen.infoId,
    type: seen.type,
    locked: seen.isMaster && flagOf(fd, TIOCGPTLCK),
    exclusive: flagOf(fd, TIOCGEXCL),
    packetMode: seen.isMaster && flagOf(fd, TIOCGPKT),
    sid: terminal?.session?.sid ?? 0,
    pgrp: terminal?.session?.pgrp ?? 0,
    rdev: Number(stat.rdev & 0xffff_ffffn),
    dev: Number(stat.dev & 0xffff_ffffn),
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    ...(termios === undefined || locked === undefined
      ? {}
      : { termios: entryOfTermios(termios), termiosLocked: entryOfTermios(locked) }),
    ...(winsize === undefined ? {} : { winsize }),
    ...(isPair ? { pty: { index: seen.pair } } : {}),
  });
}

/** Two devpts have two pairs of the same index each. */
export function isOfOurDevpts({ descriptor }: Pick<Seen, 'descriptor'>): boolean {
  const { stat, link } = descriptor.info;
  const ours = devptsDevice();
  if (ours === undefined) return false;
  if (!isMaster(stat.rdev) || stat.dev === ours) return stat.dev === ours;
  // A node outside of a devpts means the one that is mounted beside it (fs/devpts/inode.c devpts_mntget).
  const beside = `${link.slice(0, link.lastIndexOf('/'))}/pts`;
  return statSync(beside, { bigint: true, throwIfNoEntry: false })?.dev === ours;
}
