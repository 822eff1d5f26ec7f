/**
 * Threads and children: proc_pid_task(5), proc_tid_children(5), fs/proc/array.c get_children_pid().
 * The kernel promises a complete list of children only while they are stopped or frozen, so a running tree
 * is read until two walks agree, by whoever needs that.
 */
import { ProcfsError, unlessVanished } from './error.js';
import { toNumber, words } from './field.js';
import { readNumbers, readText, taskPath, type Where } from './read.js';

export interface TreeProcess {
  readonly pid: number;
  /** Parent in this walk; 0 for the root. */
  readonly parent: number;
  /** Thread of the parent that is the real parent. */
  readonly parentTid: number;
  /** Threads, ascending. */
  readonly tids: readonly number[];
  readonly children: readonly number[];
}

/** Threads of a process, ascending. */
export function listTids(pid: number, where: Where = {}): number[] {
  return readNumbers(taskPath(pid, 'task', { proc: where.proc }));
}

export function parseChildren(text: string, path = '/proc/PID/task/TID/children'): number[] {
  return words(text).map((word) => toNumber(word, { path, line: text }));
}

/** Children of one thread, zombies included. */
function readChildrenOf(pid: number, tid: number, where: Where = {}): number[] {
  const path = taskPath(pid, 'children', { proc: where.proc, tid });
  return parseChildren(readText(path), path);
}

/** Children of all threads, with the thread each belongs to. */
function readChildren(pid: number, where: Where = {}): { pid: number; parentTid: number }[] {
  const children: { pid: number; parentTid: number }[] = [];
  for (const tid of listTids(pid, where)) {
    for (const child of unlessVanished(() => readChildrenOf(pid, tid, where)) ?? []) {
      children.push({ pid: child, parentTid: tid });
    }
  }
  return children;
}

/** A process and all below it, parents before children; what vanishes during the walk is left out. */
export function readTree(root: number, where: Where = {}): TreeProcess[] {
  const tree: TreeProcess[] = [];
  const seen = new Set([root]);
  const queue = [{ pid: root, parent: 0, parentTid: 0 }];
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    const { pid } = next;
    const tids = unlessVanished(() => listTids(pid, where));
    const children = unlessVanished(() => readChildren(pid, where));
    if (tids === undefined || tids.length === 0 || children === undefined) {
      if (pid === root)
        throw new ProcfsError(taskPath(pid, 'task', { proc: where.proc }), '', 'no such process');
      continue;
    }
    tree.push({ ...next, tids, children: children.map((child) => child.pid) });
    for (const child of children) {
      // A pid that is met twice was reparented, or taken anew, during the walk.
      if (seen.has(child.pid)) continue;
      seen.add(child.pid);
      queue.push({ pid: child.pid, parent: pid, parentTid: child.parentTid });
    }
  }
  return tree;
}
