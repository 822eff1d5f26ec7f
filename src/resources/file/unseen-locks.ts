import { statSync } from 'node:fs';
import { unlessVanished } from '../../kernel/procfs/error.js';
import type { FileLock } from '../../kernel/procfs/locks.js';
import { readLocks } from '../../kernel/procfs/locks.js';
import { type Mapping, readMaps } from '../../kernel/procfs/maps.js';
import { type Descriptor, nameOf, type Process, type Refuse } from '../contract.js';
import { openersOf } from './lock-conflicts.js';

/**
 * A lock of a description stays as long as that does, and a mapping keeps it without any descriptor: then no fdinfo
 * shows the lock, /proc/locks does, and there is nothing left to take it by.
 */
export function checkUnseenLocks(
  processes: readonly Process[],
  descriptors: readonly Descriptor[],
  refuse: Refuse,
): void {
  const pids = new Set(processes.map(({ pid }) => pid));
  const held = readLocks().filter(
    ({ kind, waiting, pid }) => waiting === 0 && kind !== 'POSIX' && (pid === -1 || pids.has(pid)),
  );
  if (held.length === 0) return;
  const seen = new Set(descriptors.flatMap(({ info }) => info.info.locks.map(keyOf)));
  const unseen = held.filter((lock) => !seen.has(keyOf(lock)));
  if (unseen.length === 0) return;
  for (const process of processes) {
    if (process.state === 'zombie') continue;
    const maps = unlessVanished(() => readMaps(process.pid)) ?? [];
    for (const lock of unseen) {
      const map = maps.find((map) => isOf(lock, map));
      if (map === undefined || isHeldOutside(lock, process, map)) continue;
      refuse({
        task: nameOf(process),
        object: `lock (${lock.kind}) of ${map.path}`,
        reason:
          'no descriptor of the tree is left of the description that holds it, though the file is mapped',
        help: 'keep the descriptor open while the file is mapped',
      });
    }
  }
}

/** Another process may have the description, and the lock would outlive the tree. */
function isHeldOutside(lock: FileLock, { pid }: Process, { start, end }: Mapping): boolean {
  const file = `/proc/${pid}/map_files/${start.toString(16)}-${end.toString(16)}`;
  const stat = statSync(file, { bigint: true, throwIfNoEntry: false });
  if (stat === undefined) return false;
  return openersOf(stat).some(({ locks }) => locks.some((other) => keyOf(other) === keyOf(lock)));
}

function keyOf({ kind, type, pid, major, minor, inode, start, end }: FileLock): string {
  return [kind, type, pid, major, minor, inode, start, end].join();
}

function isOf(lock: FileLock, map: Mapping): boolean {
  return lock.inode === map.inode && lock.major === map.major && lock.minor === map.minor;
}
