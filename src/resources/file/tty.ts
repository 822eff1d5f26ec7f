import { isatty } from 'node:tty';
import { create } from '@bufbuild/protobuf';
import { O_CLOEXEC, O_NOCTTY, S_IFCHR, S_IFMT } from '../../abi/fcntl.js';
import { TCGETS, TIOCGEXCL, TIOCGLCKTRMIOS, TIOCGWINSZ } from '../../abi/ioctl.js';
import {
  createMessage,
  ImageError,
  type MessageOf,
  type termios_entry,
  termios_entrySchema,
  type tty_file_entry,
  type tty_info_entry,
} from '../../image/index.js';
import { scratch } from '../../kernel/memory.js';
import { attempt } from '../../kernel/syscall.js';
import type { Descriptor, DumpContext, DumpOptions, FileKind, Holder, Process, Refuse } from '../contract.js';
import { deviceNumbers } from '../description/calls.js';
import { refusalOf } from '../description/described.js';
import { duplicate } from '../description/holder.js';
import { inherited } from '../description/inherit.js';
import { dumpOwner, restoreOwner } from '../description/owner.js';
import { perDump, perRestore } from '../description/state.js';
import { FD_TYPE } from '../description/types.js';
import { slotPath } from './unlinked.js';

/**
 * The terminal a tree was started from, which belongs to a session outside of it (--shell-job): at restore it is
 * whichever terminal the caller has. Its settings are noted, and left alone. Terminals of the tree itself are refused.
 */
const TTY_MAJOR = 4;
const TTYAUX_MAJOR = 5;
const PTY_SLAVE_MAJORS = { first: 136, last: 143 } as const;
const SERIAL_MAJOR = 204;
const TTYAUX = { tty: 0, console: 1, ptmx: 2 } as const;

/** TtyType of tty_info_entry. */
const TYPE = { pty: 1, console: 2, vt: 3, ctty: 4, external: 5, serial: 6 } as const;
/** Indices, as CRIU counts them, of terminals that have none. */
const INDEX = { [TYPE.console]: 1002, [TYPE.vt]: 1004, [TYPE.ctty]: 1006, [TYPE.serial]: 1010 } as const;

const infos = perDump(() => new Map<number, MessageOf<'tty-info'>>());

export const tty: FileKind = {
  name: 'terminal',
  support:
    'the terminal of the session the tree was started in (--shell-job); not terminals of the tree itself',
  member: 'tty',

  recognise: ({ info }) =>
    (Number(info.stat.mode) & S_IFMT) === S_IFCHR && typeOf(info.stat.rdev) !== undefined,

  check(descriptor, refuse, options) {
    checkTerminal(descriptor, refuse, options);
  },

  dump(descriptor, id, taken, context) {
    const { info } = descriptor;
    const flags = info.info.flags & ~O_CLOEXEC;
    const fown = dumpOwner(descriptor, taken, context);
    const infoId = dumpInfo(descriptor, taken, context);
    const regfId = context.files.add((regId) => {
      const name = info.link.replace(/ \(deleted\)$/, '');
      const reg = { id: regId, flags, pos: 0n, fown, name, mode: Number(info.stat.mode) };
      return createMessage('files', { type: FD_TYPE.reg, id: regId, reg });
    });
    return createMessage('files', {
      type: FD_TYPE.tty,
      id,
      tty: { id, ttyInfoId: infoId, flags, fown, regfId },
    });
  },

  write(context) {
    const all = [...infos(context).values()];
    if (all.length > 0) context.writer.write('tty-info', null, all);
  },

  open({ id, tty }, holder) {
    if (tty === undefined) throw new ImageError('files.img', `file ${id} is no terminal`);
    const info = infoOf(tty, holder);
    const given = inherited(holder, [keyOf(info.rdev, info.dev)]);
    if (given !== undefined) return given;
    const { tape } = holder;
    const path = info.type === TYPE.ctty ? '/dev/tty' : slotPath(callersTerminal(id, holder), holder);
    const fd = tape.call('open', [tape.string(path), tty.flags | O_NOCTTY, 0]);
    restoreOwner(`file:${id}`, tty.fown, holder);
    return fd;
  },
};

function typeOf(device: bigint): (typeof TYPE)[keyof typeof TYPE] | undefined {
  const { major, minor } = deviceNumbers(device);
  if (major >= PTY_SLAVE_MAJORS.first && major <= PTY_SLAVE_MAJORS.last) return TYPE.pty;
  if (major === SERIAL_MAJOR) return TYPE.serial;
  if (major === TTY_MAJOR) return minor < 64 ? TYPE.vt : TYPE.serial;
  if (major !== TTYAUX_MAJOR) return undefined;
  if (minor === TTYAUX.tty) return TYPE.ctty;
  if (minor === TTYAUX.console) return TYPE.console;
  return minor === TTYAUX.ptmx ? TYPE.pty : undefined;
}

/** `tty[RDEV:DEV]`, in hexadecimal: how --external and --inherit-fd name a terminal. */
function keyOf(rdev: number | bigint, dev: number | bigint): string {
  return `tty[${rdev.toString(16)}:${dev.toString(16)}]`;
}

function checkTerminal(descriptor: Descriptor, refuse: Refuse, { shellJob, external }: DumpOptions): void {
  const { stat } = descriptor.info;
  if (external.includes(keyOf(stat.rdev, stat.dev))) return;
  const { major, minor } = deviceNumbers(stat.rdev);
  const isMaster = major === TTYAUX_MAJOR && minor === TTYAUX.ptmx;
  if (isMaster || sessionIsInside(descriptor.process))
    refuse(refusalOf(descriptor, 'terminals that belong to the tree itself cannot be saved yet'));
  else if (!shellJob)
    refuse(
      refusalOf(
        descriptor,
        'it is a terminal of a session outside of the tree',
        'use --shell-job if it is to have the terminal of whoever restores it, or redirect it',
      ),
    );
}

function sessionIsInside(process: Process): boolean {
  const { stat } = process;
  let root = process;
  while (root.parent !== undefined) root = root.parent;
  const holds = (member: Process): boolean => member.pid === stat.session || member.children.some(holds);
  return stat.tty_nr !== 0 && holds(root);
}

/** tty-info.img: one entry a terminal. Answers its id. */
function dumpInfo({ info, process }: Descriptor, taken: number, context: DumpContext): number {
  const type = typeOf(info.stat.rdev) ?? TYPE.pty;
  const { major, minor } = deviceNumbers(info.stat.rdev);
  const index = type === TYPE.pty ? (major - PTY_SLAVE_MAJORS.first) * 256 + minor : undefined;
  // The lowest bit tells masters from slaves.
  const id = (index ?? INDEX[type as keyof typeof INDEX]) << 1;
  if (infos(context).has(id)) return id;
  const { stat } = process;
  const isControlling = BigInt(stat.tty_nr) === info.stat.rdev;
  infos(context).set(
    id,
    createMessage('tty-info', {
      id,
      type,
      locked: false,
      exclusive: hasFlag(taken, TIOCGEXCL),
      packetMode: false,
      sid: isControlling ? (process.leader.status.nsSid.at(-1) ?? 0) : 0,
      pgrp: isControlling ? Math.max(stat.tpgid, 0) : 0,
      rdev: Number(info.stat.rdev & 0xffff_ffffn),
      dev: Number(info.stat.dev & 0xffff_ffffn),
      uid: Number(info.stat.uid),
      gid: Number(info.stat.gid),
      ...settingsOf(taken),
      ...(index === undefined ? {} : { pty: { index } }),
    }),
  );
  return id;
}

function settingsOf(taken: number): Partial<Pick<tty_info_entry, 'termios' | 'termiosLocked'>> {
  const termios = termiosOf(taken, TCGETS);
  const locked = termiosOf(taken, TIOCGLCKTRMIOS);
  if (termios === undefined || locked === undefined) return {};
  return { termios, termiosLocked: locked, ...windowOf(taken) };
}

function windowOf(taken: number): object {
  if (attempt('ioctl', [taken, TIOCGWINSZ, scratch.address]) < 0) return {};
  const [wsRow = 0, wsCol = 0, wsXpixel = 0, wsYpixel = 0] = [0, 2, 4, 6].map((at) =>
    scratch.view.getUint16(at, true),
  );
  return { winsize: { wsRow, wsCol, wsXpixel, wsYpixel } };
}

function hasFlag(taken: number, request: number): boolean {
  return attempt('ioctl', [taken, request, scratch.address]) >= 0 && scratch.view.getInt32(0, true) !== 0;
}

/** struct termios: four flags, the line discipline, 19 characters. The image has those packed, four to a number. */
function termiosOf(taken: number, request: number): termios_entry | undefined {
  const NCCS = 19;
  const CHARACTERS_AT = 17;
  scratch.bytes.fill(0, 0, 64);
  if (attempt('ioctl', [taken, request, scratch.address]) < 0) return undefined;
  const { view } = scratch;
  const characters = new DataView(new ArrayBuffer(NCCS * 4));
  for (let at = 0; at < NCCS; at++) characters.setUint8(at, view.getUint8(CHARACTERS_AT + at));
  return create(termios_entrySchema, {
    cIflag: view.getUint32(0, true),
    cOflag: view.getUint32(4, true),
    cCflag: view.getUint32(8, true),
    cLflag: view.getUint32(12, true),
    cLine: view.getUint8(16),
    cIspeed: 0,
    cOspeed: 0,
    cCc: Array.from({ length: NCCS }, (_, index) => characters.getUint32(index * 4, true)),
  });
}

const infosById = perRestore(
  ({ reader }) => new Map((reader.readOptional('tty-info') ?? []).map((info) => [info.id, info])),
);

function infoOf(tty: tty_file_entry, holder: Holder): tty_info_entry {
  const info = infosById(holder).get(tty.ttyInfoId);
  if (info === undefined) throw new ImageError('tty-info.img', `terminal ${tty.ttyInfoId} is missing`);
  return info;
}

/** Restoring needs a terminal, and the caller has none. */
export class NoTerminalError extends Error {
  readonly code = 'ENOTTY';
}

const brought = perRestore(() => ({ done: false }));

/** The key of a descriptor of the caller's terminal, which descriptions are opened from anew. */
function callersTerminal(id: number, holder: Holder): string {
  const key = 'terminal';
  const state = brought(holder);
  if (state.done) return key;
  if (!holder.options.shellJob)
    throw new NoTerminalError(`file ${id} is a terminal of another session: restore it with --shell-job`);
  const fd = [0, 1, 2].find((fd) => isatty(fd));
  if (fd === undefined)
    throw new NoTerminalError('the image wants a terminal (--shell-job), and standard input is none');
  holder.hold(key, holder.bring(duplicate(fd)));
  state.done = true;
  return key;
}
