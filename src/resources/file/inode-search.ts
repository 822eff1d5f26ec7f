import { readdirSync } from 'node:fs';
import { decodeName } from '../../image/index.js';
import { kernelDevice, pathBytes } from '../description/calls.js';
import { statOrNone } from './place.js';

/**
 * The name of an inode of which only the numbers are known, by looking through directories: those the caller names
 * (--irmap-scan-path), then where things are that programs like to watch. What was found is remembered, and looked at
 * again before it is believed; so a search before the freeze spares one within it.
 */
const LIKELY = [
  '/etc',
  '/var/spool',
  '/var/log',
  '/usr/share/dbus-1',
  '/lib/udev',
  '/var/lib',
  '/run',
  '/tmp',
];

/** Directory entries that are looked at for one inode. */
const ENTRIES_MAX = 200_000;

const known = new Map<string, string>();

/** `device` as the kernel keeps it. Undefined where the search found nothing. */
export function findInode(device: number, inode: bigint, places: readonly string[]): string | undefined {
  const key = `${device}:${inode}`;
  const before = known.get(key);
  if (before !== undefined && leadsTo(before, device, inode)) return before;
  known.delete(key);
  const budget = { entries: ENTRIES_MAX };
  for (const place of [...places, ...LIKELY, '/']) {
    const found = search(place, device, inode, budget);
    if (found === undefined) continue;
    known.set(key, found);
    return found;
  }
  return undefined;
}

/** Whether a path leads to the inode, without following a symbolic link at its end. */
function leadsTo(path: string, device: number, inode: bigint): boolean {
  const stat = statOrNone(path);
  return stat !== undefined && stat.ino === inode && kernelDevice(stat.dev) === device;
}

/** Breadth first: what is watched is seldom deep. */
function search(top: string, device: number, inode: bigint, budget: { entries: number }): string | undefined {
  if (leadsTo(top, device, inode)) return top;
  const waiting = [top];
  for (let directory = waiting.shift(); directory !== undefined; directory = waiting.shift()) {
    for (const { name, isDirectory } of entriesOf(directory)) {
      if (budget.entries-- <= 0) return undefined;
      const path = directory === '/' ? `/${name}` : `${directory}/${name}`;
      if (leadsTo(path, device, inode)) return path;
      if (isDirectory && !KERNEL_MADE.has(path)) waiting.push(path);
    }
  }
  return undefined;
}

const KERNEL_MADE: ReadonlySet<string> = new Set(['/proc', '/sys', '/dev']);

interface Entry {
  readonly name: string;
  readonly isDirectory: boolean;
}

function entriesOf(directory: string): Entry[] {
  try {
    return readdirSync(pathBytes(directory), { withFileTypes: true, encoding: 'buffer' }).map((entry) => ({
      name: decodeName(entry.name),
      isDirectory: entry.isDirectory(),
    }));
  } catch {
    // Gone meanwhile, no directory, or not for us to read: it is not there that we find it.
    return [];
  }
}
