/** Values of the whole system: /proc/uptime, /proc/stat's btime, /proc/sys/kernel. */
import { fail, toNumber } from './field.js';
import { readText } from './read.js';

/** Since boot, in the time namespace of the reader, and idle time of all CPUs; in hundredths of a second. */
export interface Uptime {
  readonly up_cs: number;
  readonly idle_cs: number;
}

export function parseUptime(text: string, path = '/proc/uptime'): Uptime {
  const place = { path, line: text.trimEnd() };
  const match = /^(\d+)\.(\d\d) (\d+)\.(\d\d)\n$/.exec(text) ?? fail(place, 'not two times');
  const [, up = '', upRest = '', idle = '', idleRest = ''] = match;
  return { up_cs: toNumber(up + upRest, place), idle_cs: toNumber(idle + idleRest, place) };
}

export function readUptime(proc = '/proc'): Uptime {
  return parseUptime(readText(`${proc}/uptime`), `${proc}/uptime`);
}

/** A file below /proc/sys by its name in sysctl's way, with slashes: 'kernel/pid_max'. */
function readSysctl(name: string, proc = '/proc'): string {
  return readText(`${proc}/sys/${name}`).replace(/\n$/, '');
}

function readSysctlNumber(name: string, proc: string): number {
  const line = readSysctl(name, proc);
  return toNumber(line, { path: `${proc}/sys/${name}`, line });
}

export const readPidMax = (proc = '/proc'): number => readSysctlNumber('kernel/pid_max', proc);
export const readCapLastCap = (proc = '/proc'): number => readSysctlNumber('kernel/cap_last_cap', proc);
export const readOverflowUid = (proc = '/proc'): number => readSysctlNumber('kernel/overflowuid', proc);

/** UUID that changes with every boot. */
export const readBootId = (proc = '/proc'): string => readSysctl('kernel/random/boot_id', proc);
