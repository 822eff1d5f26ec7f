import { PF_IO_WORKER, RLIMIT_NOFILE } from '../abi/process.js';
import { unlessVanished } from '../kernel/procfs/error.js';
import { readLimits } from '../kernel/procfs/limits.js';
import { KeptFiles, taskPath } from '../kernel/procfs/read.js';
import { readStat, readStateFlags } from '../kernel/procfs/stat.js';
import { readStatus, type Status } from '../kernel/procfs/status.js';
import { readTree, type TreeProcess } from '../kernel/procfs/tree.js';
import type { Process, Thread } from '../resources/contract.js';
import { newCore } from '../resources/process/index.js';

/** The state letter of /proc/PID/stat of a process that has ended. */
const ZOMBIE = new Set(['Z', 'X']);
const STOPPED = 'T';

/**
 * Threads that the kernel runs for io_uring are listed with those of the process, never run its code, cannot be traced,
 * and come and go as they are needed.
 */
function isWorker(flags: number): boolean {
  return (flags & PF_IO_WORKER) !== 0;
}

/** The names they have; only who is called so is asked whether he is one. */
const WORKER_NAME = /^iou-/;

/** A thread that is to be stopped, by its ids alone. */
export interface Sighting {
  readonly pid: number;
  readonly tid: number;
  /** As in /proc/PID/task/TID/stat. */
  readonly state: string;
}

/** Every thread of a tree but those of processes that have ended; a fraction of what `look` costs. */
export function sightings(root: number): Sighting[] {
  return readTree(root).flatMap(({ pid, tids }) => {
    const [first, ...others] = [pid, ...tids.filter((tid) => tid !== pid)].flatMap((tid) => {
      const seen = unlessVanished(() => readStateFlags(pid, tid));
      return seen === undefined || isWorker(seen.flags) ? [] : [{ pid, tid, state: seen.state }];
    });
    return first === undefined || first.tid !== pid || ZOMBIE.has(first.state) ? [] : [first, ...others];
  });
}

/** Beyond so many threads files are opened as they are read. */
const KEPT_MAX = 2000;
const FILES_A_THREAD = 3;

/** A quarter of the descriptors that this process may have. */
function keptMax(): number {
  const limit = readLimits(process.pid)[RLIMIT_NOFILE]?.cur ?? 0n;
  return Math.min(KEPT_MAX, Number(limit) / 4 / FILES_A_THREAD);
}

/** What `look` will read of these threads, opened before they are stopped. */
export function openFor(threads: readonly Sighting[]): KeptFiles {
  const files = new KeptFiles();
  for (const { pid, tid } of threads.slice(0, keptMax())) {
    files.keep(taskPath(pid, 'children', { tid }));
    files.keep(pid === tid ? taskPath(pid, 'status') : taskPath(pid, 'status', { tid }));
    if (pid === tid) files.keep(taskPath(pid, 'stat'));
  }
  return files;
}

/**
 * Read a tree of processes, parents first. Tasks that vanish meanwhile are left out. `stopSignals` are those by which
 * processes are stopped, where that is known already: a traced task does not show it.
 */
export function look(root: number, stopSignals: ReadonlyMap<number, number> = new Map()): Process[] {
  const found = new Map<number, Process>();
  for (const node of readTree(root)) {
    const process = unlessVanished(() => lookAt(node, found.get(node.parent), stopSignals.get(node.pid)));
    if (process !== undefined) found.set(node.pid, process);
  }
  return [...found.values()];
}

interface Draft {
  pid: number;
  insidePid: number;
  parent: Process | undefined;
  children: Process[];
  threads: Thread[];
  leader: Thread;
  state: Process['state'];
  stat: Process['stat'];
}

function lookAt(
  node: TreeProcess,
  parent: Process | undefined,
  stopSignal: number | undefined,
): Process | undefined {
  const stat = readStat(node.pid);
  const status = readStatus(node.pid);
  const isStopped = stopSignal !== undefined || stat.state === STOPPED;
  const state = ZOMBIE.has(stat.state) ? 'zombie' : isStopped ? 'stopped' : 'alive';
  const insidePid = status.nsTgid.at(-1) ?? node.pid;
  const draft = {
    pid: node.pid,
    insidePid,
    parent,
    children: [],
    threads: [],
    state,
    stat,
  } as unknown as Draft;
  const process = draft as Process;
  const tids = state === 'zombie' ? [node.pid] : [node.pid, ...node.tids.filter((tid) => tid !== node.pid)];
  for (const tid of tids) {
    const known = tid === node.pid ? status : undefined;
    const thread = unlessVanished(() => lookAtThread(process, tid, known));
    if (thread !== undefined) draft.threads.push(thread);
  }
  const [leader] = draft.threads;
  if (leader === undefined || !leader.isLeader) return undefined;
  draft.leader = leader;
  if (stopSignal !== undefined && leader.core.tc !== undefined) leader.core.tc.stopSigno = stopSignal;
  parent?.children.push(process);
  return process;
}

function lookAtThread(process: Process, tid: number, known: Status | undefined): Thread | undefined {
  const isLeader = tid === process.pid;
  const status = known ?? readStatus(process.pid, { tid });
  if (!isLeader && WORKER_NAME.test(status.name) && isWorker(readStat(process.pid, { tid }).flags))
    return undefined;
  return {
    tid,
    insideTid: status.nsPid.at(-1) ?? tid,
    process,
    isLeader,
    status,
    core: newCore(process, isLeader),
    frozen: undefined,
  };
}
