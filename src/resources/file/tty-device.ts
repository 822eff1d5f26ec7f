import type { Descriptor, Process } from '../contract.js';
import { deviceNumbers } from '../description/calls.js';

/** Devices that are terminals: Documentation/admin-guide/devices.txt, and how images number them. */
const TTY_MAJOR = 4;
const TTYAUX_MAJOR = 5;
const PTY_SLAVE_MAJORS = { first: 136, last: 143 } as const;
const SERIAL_MAJOR = 204;
const TTYAUX = { tty: 0, console: 1, ptmx: 2 } as const;

/** TtyType of tty_info_entry. */
export const TYPE = { pty: 1, console: 2, vt: 3, ctty: 4, external: 5, serial: 6 } as const;
export type Type = (typeof TYPE)[keyof typeof TYPE];

/** Indices, as CRIU counts them, of terminals that have none. */
const INDEX = {
  [TYPE.console]: 1002,
  [TYPE.vt]: 1004,
  [TYPE.ctty]: 1006,
  [TYPE.external]: 1008,
  [TYPE.serial]: 1010,
} as const;

export function typeOf(device: bigint): Type | undefined {
  const { major, minor } = deviceNumbers(device);
  if (major >= PTY_SLAVE_MAJORS.first && major <= PTY_SLAVE_MAJORS.last) return TYPE.pty;
  if (major === SERIAL_MAJOR) return TYPE.serial;
  if (major === TTY_MAJOR) return minor < 64 ? TYPE.vt : TYPE.serial;
  if (major !== TTYAUX_MAJOR) return undefined;
  if (minor === TTYAUX.tty) return TYPE.ctty;
  if (minor === TTYAUX.console) return TYPE.console;
  return minor === TTYAUX.ptmx ? TYPE.pty : undefined;
}

export function isMaster(device: bigint): boolean {
  const { major, minor } = deviceNumbers(device);
  return major === TTYAUX_MAJOR && minor === TTYAUX.ptmx;
}

/** The N of /dev/pts/N, from the device of a slave. */
export function slaveIndex(device: bigint): number {
  const { major, minor } = deviceNumbers(device);
  return (major - PTY_SLAVE_MAJORS.first) * 256 + minor;
}

export function slaveDevice(index: number): bigint {
  const [low, high] = [BigInt(index & 0xff), BigInt(index >> 8)];
  return (BigInt(PTY_SLAVE_MAJORS.first) << 8n) | low | (high << 20n);
}

/** Which pair a description belongs to; undefined for terminals that are no pairs. Masters say it in fdinfo (drivers/tty/pty.c pty_show_fdinfo). */
export function pairOf({ info }: Descriptor): number | undefined {
  const { rdev } = info.stat;
  if (typeOf(rdev) !== TYPE.pty) return undefined;
  if (!isMaster(rdev)) return slaveIndex(rdev);
  return info.info.ttyIndex;
}

/** Ids of tty-info.img: an index and, in the lowest bit, whether it is a master. */
export function infoIdOf(type: Type, index: number | undefined, master: boolean): number {
  const number = type === TYPE.pty ? (index ?? 0) : INDEX[type];
  return number * 2 + (master ? 1 : 0);
}

/** `tty[RDEV:DEV]`, in hexadecimal: how --external and --inherit-fd name a terminal. */
export function keyOf(rdev: number | bigint, dev: number | bigint): string {
  return `tty[${rdev.toString(16)}:${dev.toString(16)}]`;
}

export function keyOfDescriptor({ info }: Descriptor): string {
  return keyOf(info.stat.rdev, info.stat.dev);
}

/** Does the process's session begin inside of the tree? */
export function sessionIsInside(process: Process): boolean {
  let root = process;
  while (root.parent !== undefined) root = root.parent;
  const leads = (member: Process): boolean =>
    member.pid === process.stat.session || member.children.some(leads);
  return leads(root);
}

/** The device of a process's controlling terminal (proc_pid_stat(5) tty_nr, new_encode_dev), or undefined. */
export function controllingDevice({ stat }: Process): bigint | undefined {
  return stat.tty_nr === 0 ? undefined : BigInt(stat.tty_nr >>> 0);
}

/** "/dev/pts/3", or the numbers of other devices. */
export function deviceName(device: bigint): string {
  const { major, minor } = deviceNumbers(device);
  return typeOf(device) === TYPE.pty ? `/dev/pts/${slaveIndex(device)}` : `device ${major}:${minor}`;
}
