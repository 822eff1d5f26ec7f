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
  /** How often the thread went to sleep by itself. */
  readonly voluntarySwitches: number;
  readonly thpEnabled: boolean | undefined;
  readonly coreDumping: boolean | undefined;
  /** Every line as it stands, also those that have no field above. */
  readonly raw: ReadonlyMap<string, string>;
}

/**
 * What is read of it is parsed: a tree has many threads, of which little is asked while they are frozen. A line that is
 * missing or malformed throws when it is asked for.
 */
export function parseStatus(text: string, path = '/proc/PID/status'): Status {
  return new Lines(text, path);
}

const DECIMAL = /^\d{1,15}$/;
const MASK = /^[0-9a-f]{16}$/;

/** The lines of one status file. */
class Lines implements Status {
  readonly #text: string;
  readonly #path: string;

  constructor(text: string, path: string) {
    this.#text = text;
    this.#path = path;
  }

  get raw(): ReadonlyMap<string, string> {
    return keyed(this.#text, this.#path);
  }

  /** The name may have leading blanks. */
  get name(): string {
    return unescapeName(this.#line('Name') ?? fail(this.#place('Name'), 'no Name'));
  }
  get umask(): number | undefined {
    return this.#optional('Umask', 8);
  }
  get state(): string {
    return this.#required('State').charAt(0);
  }
  get tgid(): number {
    return this.#number('Tgid');
  }
  get pid(): number {
    return this.#number('Pid');
  }
  get ppid(): number {
    return this.#number('PPid');
  }
  get tracerPid(): number {
    return this.#number('TracerPid');
  }
  get uid(): Ids {
    return this.#ids('Uid');
  }
  get gid(): Ids {
    return this.#ids('Gid');
  }
  get fdSize(): number {
    return this.#number('FDSize');
  }
  get groups(): readonly number[] {
    return this.#numbers('Groups');
  }
  get nsTgid(): readonly number[] {
    return this.#numbers('NStgid');
  }
  get nsPid(): readonly number[] {
    return this.#numbers('NSpid');
  }
  get nsPgid(): readonly number[] {
    return this.#numbers('NSpgid');
  }
  get nsSid(): readonly number[] {
    return this.#numbers('NSsid');
  }
  get threads(): number {
    return this.#number('Threads');
  }
  get sigQ(): { readonly queued: number; readonly limit: bigint } {
    const place = this.#place('SigQ');
    const [, queued, limit = ''] =
      /^(\d+)\/(\d+)$/.exec(this.#required('SigQ')) ?? fail(place, 'not queued/limit');
    return { queued: toNumber(queued, place), limit: BigInt(limit) };
  }
  get sigPnd(): bigint {
    return this.#mask('SigPnd');
  }
  get shdPnd(): bigint {
    return this.#mask('ShdPnd');
  }
  get sigBlk(): bigint {
    return this.#mask('SigBlk');
  }
  get sigIgn(): bigint {
    return this.#mask('SigIgn');
  }
  get sigCgt(): bigint {
    return this.#mask('SigCgt');
  }
  get capInh(): bigint {
    return this.#mask('CapInh');
  }
  get capPrm(): bigint {
    return this.#mask('CapPrm');
  }
  get capEff(): bigint {
    return this.#mask('CapEff');
  }
  get capBnd(): bigint {
    return this.#mask('CapBnd');
  }
  get capAmb(): bigint {
    return this.#mask('CapAmb');
  }
  get noNewPrivs(): boolean {
    return this.#number('NoNewPrivs') !== 0;
  }
  get seccomp(): number {
    return this.#optional('Seccomp') ?? 0;
  }
  get voluntarySwitches(): number {
    return this.#number('voluntary_ctxt_switches');
  }
  get seccompFilters(): number | undefined {
    return this.#optional('Seccomp_filters');
  }
  get thpEnabled(): boolean | undefined {
    return this.#flag('THP_enabled');
  }
  get coreDumping(): boolean | undefined {
    return this.#flag('CoreDumping');
  }

  /** What stands behind the colon and its tab; undefined where there is no such line. */
  #line(key: string): string | undefined {
    const head = `${key}:\t`;
    const at = this.#text.startsWith(head) ? 0 : this.#text.indexOf(`\n${head}`) + 1;
    if (at === 0 && !this.#text.startsWith(head)) return undefined;
    const end = this.#text.indexOf('\n', at);
    return this.#text.slice(at + head.length, end < 0 ? undefined : end);
  }
  #value(key: string): string | undefined {
    return this.#line(key)?.trim();
  }
  #place(key: string): Place {
    return { path: this.#path, line: `${key}: ${this.#value(key) ?? '(absent)'}` };
  }
  #required(key: string): string {
    return this.#value(key) ?? present(undefined, this.#place(key), key);
  }
  #number(key: string): number {
    const text = this.#value(key);
    // The way of nearly all: what is wrong with the others is found out with names.
    return text !== undefined && DECIMAL.test(text) ? Number(text) : toNumber(text, this.#place(key));
  }
  #optional(key: string, base: 8 | 10 = 10): number | undefined {
    const text = this.#value(key);
    if (text === undefined) return undefined;
    return base === 10 && DECIMAL.test(text) ? Number(text) : toNumber(text, this.#place(key), base);
  }
  #flag(key: string): boolean | undefined {
    const value = this.#optional(key);
    return value === undefined ? undefined : value !== 0;
  }
  #numbers(key: string): number[] {
    return words(this.#required(key)).map((word) =>
      DECIMAL.test(word) ? Number(word) : toNumber(word, this.#place(key)),
    );
  }
  #mask(key: string): bigint {
    const text = this.#value(key);
    if (text === NOTHING) return 0n;
    return text !== undefined && MASK.test(text) ? BigInt(`0x${text}`) : toBigInt(text, this.#place(key), 16);
  }
  #ids(key: string): Ids {
    const [real, effective, saved, fs, ...more] = this.#numbers(key);
    if (
      real === undefined ||
      effective === undefined ||
      saved === undefined ||
      fs === undefined ||
      more.length > 0
    ) {
      fail(this.#place(key), 'not four ids');
    }
    return { real, effective, saved, fs };
  }
}

/** The mask of nearly all. */
const NOTHING = '0000000000000000';

/** Only newline and backslash are escaped in Name (fs/proc/array.c proc_task_name). */
function unescapeName(name: string): string {
  return name.replace(/\\(n|\\)/g, (_, letter: string) => (letter === 'n' ? '\n' : '\\'));
}

export function readStatus(pid: number, where: Where = {}): Status {
  const path = taskPath(pid, 'status', where);
  return parseStatus(readText(path), path);
}
