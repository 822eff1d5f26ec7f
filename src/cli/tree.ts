import type { InspectedProcess } from '../library/results.js';
import { type Column, formatBytes, formatTable, printable } from './table.js';

/** The tree of an image as a table, children indented below their parents. */

const ROWS_MAX = 100;

const COLUMNS: readonly Column[] = [
  { title: 'PID', align: 'right' },
  { title: 'PPID', align: 'right' },
  { title: 'THREADS', align: 'right' },
  { title: 'STATE', align: 'left' },
  { title: 'PRIVATE', align: 'right' },
  { title: 'SHARED', align: 'right' },
  { title: 'FILES', align: 'right' },
  { title: 'SAVED', align: 'right' },
  { title: 'COMMAND', align: 'left' },
];

export function formatTree(processes: readonly InspectedProcess[]): string {
  const depths = new Map<number, number>();
  for (const { pid, ppid } of processes) depths.set(pid, (depths.get(ppid) ?? -1) + 1);
  const rows = inOrder(processes)
    .slice(0, ROWS_MAX)
    .map((process) => row(process, depths.get(process.pid) ?? 0));
  const table = formatTable(COLUMNS, rows);
  const more = processes.length - rows.length;
  return more > 0 ? `${table}\n… and ${more} more` : table;
}

function row(process: InspectedProcess, depth: number): string[] {
  const { pid, ppid, threads, state, memory, comm } = process;
  const bytes = (value: number | undefined): string => (value === undefined ? '-' : formatBytes(value));
  return [
    String(pid),
    String(ppid),
    String(threads.length),
    state,
    bytes(memory?.private_bytes),
    bytes(memory?.shared_bytes),
    bytes(memory?.file_bytes),
    bytes(memory?.image_bytes),
    `${'  '.repeat(depth)}${printable(comm)}`,
  ];
}

/** Parents right before their children. */
function inOrder(processes: readonly InspectedProcess[]): InspectedProcess[] {
  const pids = new Set(processes.map(({ pid }) => pid));
  const children = new Map<number, InspectedProcess[]>();
  const roots: InspectedProcess[] = [];
  for (const process of processes) {
    if (!pids.has(process.ppid) || process.ppid === process.pid) roots.push(process);
    else children.set(process.ppid, [...(children.get(process.ppid) ?? []), process]);
  }
  const ordered: InspectedProcess[] = [];
  const stack = roots.reverse();
  for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
    ordered.push(next);
    stack.push(...(children.get(next.pid) ?? []).toReversed());
  }
  return ordered;
}
