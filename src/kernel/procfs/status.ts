/** /proc/PID/status and /proc/PID/task/TID/status: proc_pid_status(5), fs/proc/array.c, task_mmu.c task_mem(). */
import { fail, keyed, type Place, present, toBigInt, toNumber, words } from './field.js';
import { readText, taskPath, type Where } from './read.js';

/** The four ids of a task, in the order the kernel prints them. */
export interface Ids {
  readonly real: number;
  readonly effective: number;
  readonly saved: number;
  readonly fs: number;
}

export interface Status {
  readonly name: string;
  /** Absent in a zombie: its fs_struct is gone. */
  readonly umask: number | undefined;
  readonly state: string;
  readonly tgid: number;
  readonly pid: number;
  readonly ppid: number;
  readonly tracerPid: number;
  readonly uid: Ids;
  readonly gid: Ids;
  readonly fdSize: number;
  readonly groups: readonly number[];
  /** Ids in each nested pid namespace, ours first. */
  readonly nsTgid: readonly number[];
  readonly nsPid: readonly number[];
  readonly nsPgid: readonly number[];
  readonly nsSid: readonly number[];
  readonly threads: number;
  readonly sigQ: { readonly queued: number; readonly limit: bigint };
  readonly sigPnd: bigint;
  readonly shdPnd: bigint;
  readonly sigBlk: bigint;
  readonly sigIgn: bigint;
  readonly sigCgt: bigint;
  readonly capInh: bigint;
  readonly capPrm: bigint;
  readonly capEff: bigint;
  readonly capBnd: bigint;
  readonly capAmb: bigint;
  readonly noNewPrivs: boolean;
  /** SECCOMP_MODE_*; 0 where the kernel has no seccomp. */
  readonly seccomp: number;
  /** Number of filters, from Linux 5.9; undefined before. */
  readonly seccompFilters: number | undefined;
  readonly thpEnabled: boolean | undefined;
  readonly coreDumping: boolean | undefined;
  /** Every line as it stands, also those that have no field above. */
  readonly raw: ReadonlyMap<string, string>;
}

export function parseStatus(text: string, path = '/proc/PID/status'): Status {
  const raw = keyed(text, path);
  const line = new Lines(raw, path);
  const sigQ = /^(\d+)\/(\d+)$/.exec(line.text('SigQ')) ?? fail(line.place('SigQ'), 'not queued/limit');
  return {
    // Here the name may have leading blanks, so it is not taken from the trimmed map.
    name: unescapeName(
      /^Name:\t(.*)$/m.exec(text)?.[1] ?? fail({ path, line: text.slice(0, 80) }, 'no Name'),
    ),
    umask: line.optional('Umask', 8),
    state: line.text('State').charAt(0),
    tgid: line.number('Tgid'),
    pid: line.number('Pid'),
    ppid: line.number('PPid'),
    tracerPid: line.number('TracerPid'),
    uid: line.ids('Uid'),
    gid: line.ids('Gid'),
    fdSize: line.number('FDSize'),
    groups: line.numbers('Groups'),
    nsTgid: line.numbers('NStgid'),
    nsPid: line.numbers('NSpid'),
    nsPgid: line.numbers('NSpgid'),
    nsSid: line.numbers('NSsid'),
    threads: line.number('Threads'),
    sigQ: { queued: toNumber(sigQ[1], line.place('SigQ')), limit: BigInt(sigQ[2] ?? '') },
    sigPnd: line.mask('SigPnd'),
    shdPnd: line.mask('ShdPnd'),
    sigBlk: line.mask('SigBlk'),
    sigIgn: line.mask('SigIgn'),
    sigCgt: line.mask('SigCgt'),
    capInh: line.mask('CapInh'),
    capPrm: line.mask('CapPrm'),
    capEff: line.mask('CapEff'),
    capBnd: line.mask('CapBnd'),
    capAmb: line.mask('CapAmb'),
    noNewPrivs: line.number('NoNewPrivs') !== 0,
    seccomp: line.optional('Seccomp') ?? 0,
    seccompFilters: line.optional('Seccomp_filters'),
    thpEnabled: line.flag('THP_enabled'),
    coreDumping: line.flag('CoreDumping'),
    raw,
  };
}

const DECIMAL = /^\d{1,15}$/;
const MASK = /^[0-9a-f]{16}$/;

/** The lines of one status file, typed by the caller. */
class Lines {
  readonly raw: ReadonlyMap<string, string>;
  readonly path: string;

  constructor(raw: ReadonlyMap<string, string>, path: string) {
    this.raw = raw;
    this.path = path;
  }

  place(key: string): Place {
    return { path: this.path, line: `${key}: ${this.raw.get(key) ?? '(absent)'}` };
  }
  text(key: string): string {
    return this.raw.get(key) ?? present(undefined, this.place(key), key);
  }
  number(key: string): number {
    const text = this.raw.get(key);
    // The way of nearly all: what is wrong with the others is found out with names.
    return text !== undefined && DECIMAL.test(text) ? Number(text) : toNumber(text, this.place(key));
  }
  optional(key: string, base: 8 | 10 = 10): number | undefined {
    return this.raw.has(key) ? toNumber(this.raw.get(key), this.place(key), base) : undefined;
  }
  flag(key: string): boolean | undefined {
    const value = this.optional(key);
    return value === undefined ? undefined : value !== 0;
  }
  numbers(key: string): number[] {
    return words(this.text(key)).map((word) =>
      DECIMAL.test(word) ? Number(word) : toNumber(word, this.place(key)),
    );
  }
  mask(key: string): bigint {
    const text = this.raw.get(key);
    return text !== undefined && MASK.test(text) ? BigInt(`0x${text}`) : toBigInt(text, this.place(key), 16);
  }
  ids(key: string): Ids {
    const [real, effective, saved, fs, ...more] = this.numbers(key);
    if (
      real === undefined ||
      effective === undefined ||
      saved === undefined ||
      fs === undefined ||
      more.length > 0
    ) {
      fail(this.place(key), 'not four ids');
    }
    return { real, effective, saved, fs };
  }
}

/** Only newline and backslash are escaped in Name (fs/proc/array.c proc_task_name). */
function unescapeName(name: string): string {
  return name.replace(/\\(n|\\)/g, (_, letter: string) => (letter === 'n' ? '\n' : '\\'));
}

export function readStatus(pid: number, where: Where = {}): Status {
  const path = taskPath(pid, 'status', where);
  return parseStatus(readText(path), path);
}
