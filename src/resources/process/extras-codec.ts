import { isRecord } from '../../image/json.js';
/** The content of stasis-tasks.json. Numbers of 64 bits are decimal strings; masks are hexadecimal ones. */

/** struct sched_attr beyond policy, nice and priority: what sched_setattr(2) takes. Times in nanoseconds. */
export interface Scheduling {
  /** SCHED_FLAG_* */
  readonly flags: number;
  readonly runtime: string;
  readonly deadline: string;
  readonly period: string;
  /** 0…1024; absent where the kernel's default holds. */
  readonly util_min?: number;
  readonly util_max?: number;
}

/** Clock ticks (100 a second), from /proc/PID/stat; start is ticks after boot. */
export interface Accounting {
  readonly utime: number;
  readonly stime: number;
  readonly cutime: number;
  readonly cstime: number;
  readonly start: number;
  readonly minflt: number;
  readonly majflt: number;
}

export interface TaskExtras {
  /** CPUs it may run on, hexadecimal, bit n for CPU n; "all" where nothing was restricted. */
  readonly affinity?: string;
  /** ioprio_set(2) */
  readonly ioprio?: number;
  readonly scheduling?: Scheduling;
  /** Nanoseconds. */
  readonly timer_slack?: number;
  /** set_mempolicy(2): mode with its flags, and nodes in hexadecimal. */
  readonly numa_mode?: number;
  readonly numa_nodes?: string;
  /** MMF_DUMP bits, of the process. */
  readonly coredump_filter?: number;
  /** PR_GET_SPECULATION_CTRL of store bypass, indirect branch, L1D flush. */
  readonly speculation?: readonly number[];
  readonly mce_kill?: number;
  readonly io_flusher?: number;
  /** PR_GET_TSC */
  readonly tsc?: number;
  /** ARCH_GET_CPUID: 0 where the instruction faults. */
  readonly cpuid?: number;
  /** PR_GET_MDWE */
  readonly mdwe?: number;
  /** PR_GET_MEMORY_MERGE */
  readonly memory_merge?: number;
  /** Dynamic xsave features the process asked for (ARCH_REQ_XCOMP_PERM), hexadecimal. */
  readonly xcomp?: string;
  /** See restartCode in interrupted.ts. */
  readonly restart?: number;
  /** What is left of that call's relative timeout, in nanoseconds. */
  readonly remaining?: string;
  /** Extended state that the core has no field for, by feature. */
  readonly xstate?: ReadonlyMap<number, Uint8Array>;
  /** Stopped children whose stop it has waited for already, by pid. */
  readonly reported_stops?: readonly number[];
  readonly accounting?: Accounting;
}

export type MutableExtras = { -readonly [K in keyof TaskExtras]: TaskExtras[K] };

const VERSION = 1;
const TASKS_MAX = 1 << 22;

type Check = (value: unknown) => boolean;
const isNumber: Check = (value) => Number.isSafeInteger(value);
const isHex: Check = (value) => typeof value === 'string' && /^[0-9a-f]{1,4096}$/.test(value);
const isDecimal: Check = (value) => typeof value === 'string' && /^\d{1,20}$/.test(value);
const isOptionalNumber: Check = (value) => value === undefined || isNumber(value);

function recordOf(checks: Readonly<Record<string, Check>>): Check {
  return (value) => isRecord(value) && Object.entries(checks).every(([key, check]) => check(value[key]));
}

const CHECKS: Readonly<Record<Exclude<keyof TaskExtras, 'xstate'>, Check>> = {
  affinity: (value) => value === 'all' || isHex(value),
  ioprio: isNumber,
  scheduling: recordOf({
    flags: isNumber,
    runtime: isDecimal,
    deadline: isDecimal,
    period: isDecimal,
    util_min: isOptionalNumber,
    util_max: isOptionalNumber,
  }),
  timer_slack: isNumber,
  numa_mode: isNumber,
  numa_nodes: isHex,
  coredump_filter: isNumber,
  speculation: (value) => Array.isArray(value) && value.length <= 3 && value.every(isNumber),
  mce_kill: isNumber,
  io_flusher: isNumber,
  tsc: isNumber,
  cpuid: isNumber,
  mdwe: isNumber,
  memory_merge: isNumber,
  xcomp: isHex,
  restart: isNumber,
  remaining: isDecimal,
  reported_stops: (value) => Array.isArray(value) && value.every(isNumber),
  accounting: isRecord,
};

/** Throws Error saying which field of which task is not as it should be; unknown fields are a later release's. */
export function decodeExtras(content: unknown): ReadonlyMap<number, TaskExtras> {
  if (!isRecord(content) || content.version !== VERSION || !isRecord(content.tasks))
    throw new Error(`is not of version ${VERSION}`);
  const entries = Object.entries(content.tasks);
  if (entries.length > TASKS_MAX) throw new Error('has too many tasks');
  return new Map(entries.map(([tid, task]) => [Number(tid), decodeTask(tid, task)]));
}

function decodeTask(tid: string, task: unknown): TaskExtras {
  if (!/^\d+$/.test(tid) || !isRecord(task)) throw new Error(`task ${tid} is no record`);
  const extras: Record<string, unknown> = {};
  for (const [key, check] of Object.entries(CHECKS)) {
    const value = task[key];
    if (value === undefined) continue;
    if (!check(value)) throw new Error(`task ${tid}: ${key} is ${JSON.stringify(value)}`);
    extras[key] = value;
  }
  if (task.xstate !== undefined) extras.xstate = decodeXstate(tid, task.xstate);
  return extras;
}

function decodeXstate(tid: string, value: unknown): ReadonlyMap<number, Uint8Array> {
  if (!isRecord(value)) throw new Error(`task ${tid}: xstate is no record`);
  return new Map(
    Object.entries(value).map(([feature, bytes]) => {
      if (!/^\d{1,2}$/.test(feature) || typeof bytes !== 'string')
        throw new Error(`task ${tid}: xstate ${feature}`);
      return [Number(feature), new Uint8Array(Buffer.from(bytes, 'base64'))];
    }),
  );
}
