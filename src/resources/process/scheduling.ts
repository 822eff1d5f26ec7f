import { readFileSync } from 'node:fs';
import {
  PRIO_PROCESS,
  SCHED_DEADLINE,
  SCHED_FIFO,
  SCHED_FLAG_RESET_ON_FORK,
  SCHED_FLAG_UTIL_CLAMP_MAX,
  SCHED_FLAG_UTIL_CLAMP_MIN,
  SCHED_RESET_ON_FORK,
  SCHED_RR,
} from '../../abi/process.js';
import type { Tape, TaskState } from '../contract.js';
import { answerOf } from './answers.js';
import { threadCore } from './core.js';
import { extrasFor, extrasOf } from './extras.js';
import type { Scheduling } from './extras-codec.js';

/**
 * Policy, priority and nice value: sched_getattr(2) of any task. The image has fields for those three, the policy with
 * SCHED_RESET_ON_FORK in it, as sched_getscheduler(2) has it; other flags, deadline parameters, utilisation clamps and
 * the set of CPUs go into our own file.
 */

/** struct sched_attr, SCHED_ATTR_SIZE_VER1 */
const ATTR_SIZE = 56;
const ATTR = {
  size: 0, policy: 4, flags: 8, nice: 16, priority: 20, runtime: 24, deadline: 32, period: 40, min: 48, max: 52,
} as const; // biome-ignore format: a struct's layout
const UTIL_MAX = 1024;

interface Attributes extends Scheduling {
  readonly policy: number;
  readonly nice: number;
  readonly priority: number;
}

function decode(view: DataView): Attributes {
  const util_min = view.getUint32(ATTR.min, true);
  const util_max = view.getUint32(ATTR.max, true);
  // A kernel without clamps leaves both 0.
  const isClamped = util_max !== 0 && (util_min !== 0 || util_max !== UTIL_MAX);
  const policy = view.getUint32(ATTR.policy, true);
  // What other policies show as runtime is the length of the scheduler's own slice.
  const time = (at: number) => (policy === SCHED_DEADLINE ? String(view.getBigUint64(at, true)) : '0');
  return {
    policy,
    nice: view.getInt32(ATTR.nice, true),
    priority: view.getUint32(ATTR.priority, true),
    flags: Number(view.getBigUint64(ATTR.flags, true)),
    runtime: time(ATTR.runtime),
    deadline: time(ATTR.deadline),
    period: time(ATTR.period),
    ...(isClamped ? { util_min, util_max } : {}),
  };
}

function encode(attributes: Attributes): Uint8Array {
  const bytes = new Uint8Array(ATTR_SIZE);
  const view = new DataView(bytes.buffer);
  const { util_min, util_max } = attributes;
  const clamps = util_min === undefined ? 0 : SCHED_FLAG_UTIL_CLAMP_MIN | SCHED_FLAG_UTIL_CLAMP_MAX;
  view.setUint32(ATTR.size, ATTR_SIZE, true);
  view.setUint32(ATTR.policy, attributes.policy, true);
  view.setBigUint64(ATTR.flags, BigInt(attributes.flags | clamps), true);
  view.setInt32(ATTR.nice, attributes.nice, true);
  view.setUint32(ATTR.priority, attributes.priority, true);
  view.setBigUint64(ATTR.runtime, BigInt(attributes.runtime), true);
  view.setBigUint64(ATTR.deadline, BigInt(attributes.deadline), true);
  view.setBigUint64(ATTR.period, BigInt(attributes.period), true);
  view.setUint32(ATTR.min, util_min ?? 0, true);
  view.setUint32(ATTR.max, util_max ?? 0, true);
  return bytes;
}

const isInCore = ({ flags, runtime, util_min }: Scheduling) =>
  (flags & ~SCHED_FLAG_RESET_ON_FORK) === 0 && runtime === '0' && util_min === undefined;

export const scheduling: TaskState = {
  name: 'scheduling',
  scope: 'thread',
  support: 'policy, priority, nice value, deadline parameters, reset-on-fork, utilisation clamps',

  inquiry: {
    room: ATTR_SIZE,
    put(ask, { tid }, at) {
      ask('sched_getattr', tid, at, ATTR_SIZE, 0);
      ask('getpriority', PRIO_PROCESS, tid);
    },
    read({ results: [attributes, inverse], view }, thread, context) {
      answerOf('sched_getattr', attributes, thread);
      const { policy, nice, priority, ...rest } = decode(view);
      const core = threadCore(thread.core);
      // A realtime task keeps its nice value for later; getpriority(2) answers 20 − nice.
      const isRealtime = policy === SCHED_FIFO || policy === SCHED_RR;
      core.schedNice = isRealtime ? 20 - answerOf('getpriority', inverse, thread) : nice;
      core.schedPolicy =
        (rest.flags & SCHED_FLAG_RESET_ON_FORK) === 0 ? policy : policy | SCHED_RESET_ON_FORK;
      if (isRealtime) core.schedPrio = priority;
      if (!isInCore(rest)) extrasOf(context, thread.insideTid).scheduling = rest;
    },
  },

  restore(task, tape) {
    const { schedNice: nice, schedPolicy, schedPrio: priority } = threadCore(task.core);
    const more = extrasFor(task.reader, task.tid)?.scheduling;
    tape.call('setpriority', [PRIO_PROCESS, 0, nice], 0);
    const flags = (schedPolicy & SCHED_RESET_ON_FORK) === 0 ? 0 : SCHED_FLAG_RESET_ON_FORK;
    const policy = schedPolicy & ~SCHED_RESET_ON_FORK;
    const plain: Scheduling = { flags, runtime: '0', deadline: '0', period: '0' };
    const attributes = encode({ policy, nice, priority, ...(more ?? plain) });
    tape.call('sched_setattr', [0, tape.space(attributes), 0], 0);
  },
};

const CPU_BYTES = 1024;

export const affinity: TaskState = {
  name: 'CPU affinity',
  scope: 'thread',
  support:
    'kept by Stasis only, CRIU’s format has no field; refused at restore where none of the CPUs exists',

  inquiry: {
    room: CPU_BYTES,
    put(ask, { tid }, at) {
      ask('sched_getaffinity', tid, CPU_BYTES, at);
    },
    read({ results: [result], bytes }, thread, context) {
      const mask = maskOf(bytes.subarray(0, answerOf('sched_getaffinity', result, thread)));
      const online = onlineCpus();
      extrasOf(context, thread.insideTid).affinity = (mask & online) === online ? 'all' : mask.toString(16);
    },
  },

  restore(task, tape) {
    const wanted = extrasFor(task.reader, task.tid)?.affinity;
    if (wanted === undefined) return;
    if (wanted !== 'all' && (BigInt(`0x${wanted}`) & onlineCpus()) === 0n)
      throw new Error(`${task.name} is bound to CPUs 0x${wanted}, of which this machine has none`);
    setAffinity(tape, wanted);
  },
};

function setAffinity(tape: Tape, wanted: string): void {
  const mask = new Uint8Array(CPU_BYTES);
  if (wanted === 'all') mask.fill(0xff);
  else {
    let rest = BigInt(`0x${wanted}`);
    for (let at = 0; rest !== 0n && at < mask.length; at++, rest >>= 8n) mask[at] = Number(rest & 0xffn);
  }
  tape.call('sched_setaffinity', [0, CPU_BYTES, tape.space(mask)], 0);
}

function maskOf(bytes: Uint8Array): bigint {
  return bytes.reduceRight((mask, byte) => (mask << 8n) | BigInt(byte), 0n);
}

/** "0-3,8" as a mask. */
export function parseCpuList(text: string): bigint {
  let mask = 0n;
  for (const part of text.trim().split(',')) {
    const match = /^(\d+)(?:-(\d+))?$/.exec(part);
    if (match === null) throw new Error(`not a list of CPUs: ${text}`);
    const first = Number(match[1]);
    for (let cpu = first; cpu <= Number(match[2] ?? first); cpu++) mask |= 1n << BigInt(cpu);
  }
  return mask;
}

let online: bigint | undefined;

/** As at the first look: one dump or restore does not outlast a change of the machine. */
function onlineCpus(): bigint {
  online ??= parseCpuList(readFileSync('/sys/devices/system/cpu/online', 'utf8'));
  return online;
}
