import { create } from '@bufbuild/protobuf';
import { CAP_SYS_ADMIN } from '../../abi/capability.js';
import { PR_SET_SECCOMP } from '../../abi/prctl.js';
import {
  BPF_K,
  BPF_MAXINSNS,
  BPF_RET,
  SECCOMP_FILTER_FLAG_TSYNC,
  SECCOMP_MODE_DISABLED,
  SECCOMP_MODE_FILTER,
  SECCOMP_MODE_STRICT,
  SECCOMP_RET_ACTION_FULL,
  SECCOMP_RET_USER_NOTIF,
  SECCOMP_SET_MODE_FILTER,
} from '../../abi/seccomp.js';
import { createMessage } from '../../image/codec.js';
import type { ImageReader } from '../../image/reader.js';
import { type seccomp_filter, seccomp_filterSchema } from '../../image/schema/index.js';
import { readStatus } from '../../kernel/procfs/status.js';
import * as ptrace from '../../kernel/ptrace.js';
import {
  type DumpContext,
  nameOf,
  type Process,
  type Tape,
  type TaskState,
  type Thread,
} from '../contract.js';
import { has, threadCore } from './core.js';

/**
 * Seccomp: strict mode, or a chain of filters, read with PTRACE_SECCOMP_GET_FILTER (CAP_SYS_ADMIN in the initial user
 * namespace, and no filters on ourselves). seccomp.img holds every distinct filter once; a thread names its newest,
 * and each names the one that was there before it.
 *
 * Filters are installed while PTRACE_O_SUSPEND_SECCOMP holds for the task, or they would see the rest of its tape.
 */
const INSTRUCTION_SIZE = 8;

interface Interned {
  readonly filters: seccomp_filter[];
  /** Index by previous filter, flags and bytes. */
  readonly index: Map<string, number>;
}

const interned = new WeakMap<DumpContext, Interned>();

function internOf(context: DumpContext): Interned {
  const found = interned.get(context) ?? { filters: [], index: new Map() };
  interned.set(context, found);
  return found;
}

interface Filter {
  readonly bytes: Uint8Array;
  readonly flags: number;
}

/** A thread's filters, oldest first: so the kernel counts (kernel/seccomp.c get_nth_filter), whatever ptrace(2) says. */
function readChain(thread: Thread, context: DumpContext): Filter[] {
  const chain: Filter[] = [];
  for (;;) {
    const bytes = ptrace.getSeccompFilter(thread.tid, chain.length);
    if (bytes === undefined) return chain;
    if (wantsListener(bytes))
      context.refuse({
        task: nameOf(thread),
        object: `seccomp filter ${chain.length}`,
        reason:
          'it hands system calls to a listener (SECCOMP_RET_USER_NOTIF), which cannot be tied to it again',
      });
    chain.push({ bytes, flags: Number(ptrace.getSeccompFlags(thread.tid, chain.length)) });
  }
}

function isSame(a: readonly Filter[], b: readonly Filter[]): boolean {
  const isEqual = (one: Filter, other: Filter | undefined) =>
    other !== undefined && one.flags === other.flags && Buffer.compare(one.bytes, other.bytes) === 0;
  return a.length === b.length && a.every((filter, index) => isEqual(filter, b[index]));
}

/** The index of the chain's newest filter. */
function intern(chain: readonly Filter[], more: number, { filters, index }: Interned): number | undefined {
  let previous: number | undefined;
  for (const { bytes, flags } of chain) {
    const key = `${previous ?? ''}:${flags | more}:${Buffer.from(bytes).toString('base64')}`;
    let at = index.get(key);
    if (at === undefined) {
      at = filters.length;
      const entry = create(seccomp_filterSchema, { filter: bytes, flags: flags | more });
      if (previous !== undefined) entry.prev = previous;
      filters.push(entry);
      index.set(key, at);
    }
    previous = at;
  }
  return previous;
}

/**
 * All threads of a process at once. A program that installed its filters with SECCOMP_FILTER_FLAG_TSYNC may do so
 * again, for which its threads must share their filters, not only have equal ones; the kernel does not show which is
 * the case. So where all have the same chain, the leader's is marked to be given to all, as in CRIU's images.
 */
function dumpFilters(process: Process, context: DumpContext): void {
  const chains = process.threads.map((thread) => ({
    thread,
    chain: filtered(thread) ? readChain(thread, context) : [],
  }));
  const [leader, ...others] = chains;
  if (leader === undefined) return;
  const isShared =
    others.length > 0 && leader.chain.length > 0 && others.every(({ chain }) => isSame(chain, leader.chain));
  for (const { thread, chain } of isShared ? [leader] : chains) {
    const last = intern(chain, isShared ? SECCOMP_FILTER_FLAG_TSYNC : 0, internOf(context));
    if (last === undefined) continue;
    const core = threadCore(thread.core);
    core.seccompMode = SECCOMP_MODE_FILTER;
    core.seccompFilter = last;
  }
}

function modeOf({ status }: Thread): number {
  return status.seccomp;
}

function filtered(thread: Thread): boolean {
  return modeOf(thread) === SECCOMP_MODE_FILTER;
}

/** Does a filter return SECCOMP_RET_USER_NOTIF somewhere? */
export function wantsListener(filter: Uint8Array): boolean {
  const view = new DataView(filter.buffer, filter.byteOffset, filter.byteLength);
  for (let at = 0; at + INSTRUCTION_SIZE <= filter.length; at += INSTRUCTION_SIZE) {
    if (view.getUint16(at, true) !== (BPF_RET | BPF_K)) continue;
    if ((view.getUint32(at + 4, true) & SECCOMP_RET_ACTION_FULL) >>> 0 === SECCOMP_RET_USER_NOTIF)
      return true;
  }
  return false;
}

export const seccomp: TaskState = {
  name: 'seccomp',
  scope: 'thread',
  support:
    'strict mode and chains of filters with their LOG flag; filters with a listener are refused; filters that all threads of a process have in common stay synchronisable (TSYNC)',

  check(thread, refuse) {
    if (thread.status.seccomp !== SECCOMP_MODE_FILTER || canReadFilters()) return;
    refuse({
      task: nameOf(thread),
      object: 'seccomp filters',
      reason: 'they cannot be read from here',
      help: 'CAP_SYS_ADMIN in the initial user namespace, and no seccomp filters on the dumping process itself',
    });
  },

  read(thread, context) {
    if (thread.isLeader) dumpFilters(thread.process, context);
    if (modeOf(thread) === SECCOMP_MODE_STRICT) threadCore(thread.core).seccompMode = SECCOMP_MODE_STRICT;
  },

  write(context) {
    const { filters } = internOf(context);
    context.writer.write('seccomp', null, [createMessage('seccomp', { seccompFilters: filters })]);
  },

  restore(task, tape) {
    const core = threadCore(task.core);
    if (core.seccompMode === SECCOMP_MODE_STRICT) {
      tape.call('prctl', [PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0], 0);
      return;
    }
    if (core.seccompMode !== SECCOMP_MODE_FILTER || !has(core, 'seccompFilter')) return;
    for (const [index, filter] of chainOf(task.reader, core.seccompFilter, task.name).entries()) {
      tape.about(`seccomp filter ${index}`);
      install(tape, filter);
    }
  },
};

function canReadFilters(): boolean {
  const { capEff, seccomp: own } = readStatus(process.pid);
  return own === SECCOMP_MODE_DISABLED && (capEff & (1n << BigInt(CAP_SYS_ADMIN))) !== 0n;
}

/** struct sock_fprog: length in instructions, then a pointer. */
function install(tape: Tape, { filter, flags }: seccomp_filter): void {
  const program = new Uint8Array(16);
  new DataView(program.buffer).setUint16(0, filter.length / INSTRUCTION_SIZE, true);
  const space = tape.space(program);
  tape.pointer(space, 8, tape.space(filter));
  tape.call('seccomp', [SECCOMP_SET_MODE_FILTER, flags, space], 0);
}

/** From the oldest filter to the one at `last`. */
function chainOf(reader: ImageReader, last: number, task: string): seccomp_filter[] {
  const filters = filtersOf(reader);
  const chain: seccomp_filter[] = [];
  for (let at: number | undefined = last; at !== undefined; ) {
    const filter: seccomp_filter | undefined = filters[at];
    const isWhole = filter !== undefined && filter.filter.length % INSTRUCTION_SIZE === 0;
    if (!isWhole || filter.filter.length > BPF_MAXINSNS * INSTRUCTION_SIZE || chain.length > filters.length)
      throw new Error(`${task}: seccomp.img has no sound chain of filters that ends with filter ${last}`);
    chain.push(filter);
    at = has(filter, 'prev') ? filter.prev : undefined;
  }
  return chain.reverse();
}

const filtersByReader = new WeakMap<ImageReader, readonly seccomp_filter[]>();

function filtersOf(reader: ImageReader): readonly seccomp_filter[] {
  const known = filtersByReader.get(reader);
  if (known !== undefined) return known;
  const filters = reader.readOne('seccomp').seccompFilters;
  filtersByReader.set(reader, filters);
  return filters;
}
