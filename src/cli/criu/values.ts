import { UsageError } from './getopt.js';

/** Values of options, read the way C's atoi(3) and the manual of `criu` read them. */

/** atoi(3): leading digits with a sign, else 0. */
export function leadingInteger(text: string): number {
  return Number(/^\s*[+-]?\d+/.exec(text)?.[0] ?? 0);
}

const UNITS: readonly (readonly [letter: string, bytes: number])[] = [
  ['K', 2 ** 10],
  ['M', 2 ** 20],
  ['G', 2 ** 30],
];

/** `8M` in bytes. */
export function parseSize(text: string): number {
  const unit = UNITS.find(([letter]) => text.includes(letter))?.[1] ?? 1;
  return leadingInteger(text) * unit;
}

export const CGROUP_MODES = ['none', 'props', 'soft', 'full', 'strict', 'ignore'] as const;
export type CgroupMode = (typeof CGROUP_MODES)[number];

export const NETWORK_LOCKS = ['iptables', 'nftables', 'skip', 'none'] as const;
export const FILE_VALIDATIONS = ['filesize', 'buildid'] as const;
export const PRE_DUMP_MODES = ['splice', 'read'] as const;

/** One of a few words. */
export function oneOf<T extends string>(words: readonly T[], value: string, option: string): T {
  const found = words.find((word) => word === value);
  if (found === undefined) throw new UsageError(`--${option} is one of ${words.join(', ')}, not ${value}`);
  return found;
}

/** Which CPU capabilities are compared (`cpu`, `fpu`, `ins`), and whether cpuinfo.img is written and read. */
export interface CpuCap {
  readonly fpu: boolean;
  readonly ins: boolean;
  readonly cpu: boolean;
  readonly image: boolean;
}

export const CPU_CAP_DEFAULT: CpuCap = { fpu: true, ins: true, cpu: false, image: false };
const CPU_CAP_ALL: CpuCap = { fpu: true, ins: true, cpu: true, image: true };
const CPU_CAP_NONE: CpuCap = { fpu: false, ins: false, cpu: false, image: false };

/** `cpu,^fpu`: a comma-separated list, `^` takes away; no value means all. */
export function parseCpuCap(value: string | undefined, before: CpuCap): CpuCap {
  if (value === undefined) return CPU_CAP_ALL;
  let cap = before;
  for (const word of value.split(',')) {
    const on = !word.startsWith('^');
    const name = on ? word : word.slice(1);
    if (name === 'all') cap = on ? CPU_CAP_ALL : CPU_CAP_NONE;
    else if (name === 'none') cap = on ? CPU_CAP_NONE : CPU_CAP_ALL;
    else if (name === 'fpu' || name === 'cpu' || name === 'ins') cap = { ...cap, [name]: on };
    else throw new UsageError(`--cpu-cap knows cpu, fpu, ins, all and none, not ${name}`);
  }
  return { ...cap, image: cap.fpu || cap.cpu || cap.ins };
}

/** `fd[N]:KEY`, where KEY names an outside file of the image: `tty[rdev:dev]`, `pipe:[inode]`, a path. */
export function parseInheritFd(text: string): { fd: number; key: string } {
  const match = /^fd\[(\d+)\]:(.+)$/s.exec(text);
  if (match === null) throw new UsageError(`--inherit-fd is fd[NUMBER]:KEY, not ${text}`);
  const [, fd = '', key = ''] = match;
  return { fd: Number(fd), key };
}

/** `NS:PID` or `NS:PATH`, with the kinds of namespaces that CRIU can join. */
export function parseJoinNs(text: string): string {
  if (!/^(ipc|net|time|user|uts):./s.test(text))
    throw new UsageError(`--join-ns is NS:PID or NS:FILE, NS one of ipc, net, time, user, uts, not ${text}`);
  return text;
}
