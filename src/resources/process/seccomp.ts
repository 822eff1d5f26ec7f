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
import { type seccomp_filter, seccomp_filterSchema } from '../../image/schema/index.js';
import type { ImageReader } from '../../image/reader.js';
import * as ptrace from '../../kernel/ptrace.js';
import { readStatus } from '../../kernel/procfs/status.js';
import { type DumpContext, nameOf, type RestoreTask, type Tape, type TaskState, type Thread } from '../contract.js';
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

/**
 * The index of a thread's newest filter. The kernel counts from the oldest (kernel/seccomp.c get_nth_filter), whatever
 * ptrace(2) says.
 */
function internChain(thread: Thread, context: DumpContext): number | undefined {
  const { filters, index } = internOf(context);
  const chain: { filter: Uint8Array; flags: number }[] = [];
  for (;;) {
    const filter = ptrace.getSeccompFilter(thread.tid, chain.length);
    if (filter === undefined) break;
    if (wantsListener(filter))
      context.refuse({
        task: nameOf(thread),
        object: `seccomp filter ${chain.length}`,
        reason: 'it hands system calls to a listener (SECCOMP_RET_USER_NOTIF), which cannot be tied to it again',
      });
    chain.push({ filter, flags: Number(ptrace.getSeccompFlags(thread.tid, chain.length)) });
  }
  let previous: number | undefined;
  for (const { filter, flags } of chain) {
    const key = `${previous ?? ''}:${flags}:${Buffer.from(filter).toString('base64')}`;
    let at = index.get(key);
    if (at === undefined) {
      at = filters.length;
      const entry = create(seccomp_filterSchema, { filter, flags });
      if (previous !== undefined) entry.prev = previous;
      filters.push(entry);
      index.set(key, at);
    }
    previous = at;
  }
  return previous;
}

/** Does a filter return SECCOMP_RET_USER_NOTIF somewhere? */
export function wantsListener(filter: Uint8Array): boolean {
  const view = new DataView(filter.buffer, filter.byteOffset, filter.byteLength);
  for (let at = 0; at + INSTRUCTION_SIZE <= filter.length; at += INSTRUCTION_SIZE) {
    if (view.getUint16(at, true) !== (BPF_RET | BPF_K)) continue;
    if ((view.getUint32(at + 4, true) & SECCOMP_RET_ACTION_FULL) >>> 0 === SECCOMP_RET_USER_NOTIF) return true;
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
    const mode = readStatus(thread.process.pid, { tid: thread.tid }).seccomp;
    if (mode === SECCOMP_MODE_DISABLED) return;
    const core = threadCore(thread.core);
    core.seccompMode = mode;
    if (mode !== SECCOMP_MODE_FILTER) return;
    const last = internChain(thread, context);
    if (last !== undefined) core.seccompFilter = last;
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
    const isShared = sharedByAllThreads(task);
    if (isShared && !task.isLeader) return;
    for (const [index, filter] of chainOf(task.reader, core.seccompFilter, task.name).entries()) {
      tape.about(`seccomp filter ${index}`);
      install(tape, filter, isShared ? SECCOMP_FILTER_FLAG_TSYNC : 0);
    }
  },
};

function canReadFilters(): boolean {
  const { capEff, seccomp: own } = readStatus(process.pid);
  return own === SECCOMP_MODE_DISABLED && (capEff & (1n << BigInt(CAP_SYS_ADMIN))) !== 0n;
}

/** struct sock_fprog: length in instructions, then a pointer. */
function install(tape: Tape, { filter, flags }: seccomp_filter, more: number): void {
  const program = new Uint8Array(16);
  new DataView(program.buffer).setUint16(0, filter.length / INSTRUCTION_SIZE, true);
  const space = tape.space(program);
  tape.pointer(space, 8, tape.space(filter));
  tape.call('seccomp', [SECCOMP_SET_MODE_FILTER, flags | more, space], 0);
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

const sharing = new WeakMap<ImageReader, Map<number, boolean>>();

/**
 * Whether all threads of a task's process have the leader's chain. Then the leader installs it in all of them at
 * once, so that they share it and a later SECCOMP_FILTER_FLAG_TSYNC of the program works as it did.
 */
function sharedByAllThreads({ reader, pid, leaderCore }: RestoreTask): boolean {
  const known = sharing.get(reader) ?? new Map<number, boolean>();
  sharing.set(reader, known);
  let shared = known.get(pid);
  if (shared === undefined) {
    const threads = reader.read('pstree').find((entry) => entry.pid === pid)?.threads ?? [];
    const chain = leaderCore.threadCore?.seccompFilter;
    shared =
      threads.length > 1 &&
      threads.every((tid) => {
        const core = reader.readOne('core', tid).threadCore;
        return core?.seccompMode === SECCOMP_MODE_FILTER && core.seccompFilter === chain;
      });
    known.set(pid, shared);
  }
  return shared;
}
