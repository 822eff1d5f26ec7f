import { lstatSync, statSync } from 'node:fs';
import { unlessVanished } from '../../kernel/procfs/error.js';
import type { FileLock } from '../../kernel/procfs/locks.js';
import { type Mapping, mapFilePath, readMaps } from '../../kernel/procfs/maps.js';
import { type Descriptor, type DumpOptions, nameOf, type Process, type Refuse } from '../contract.js';
import { keyOfMappedLock, type MappedLocks } from '../description/mapped-locks.js';
import { openersOf } from './lock-conflicts.js';

/**
 * A lock of a description stays as long as that does, and a mapping keeps it without any descriptor: then no fdinfo
 * shows the lock, /proc/locks (`locks`) does. Which mappings are of the description does not show anywhere, so it has to be plain:
 * whoever took the lock by flock(2) is the only one who has mapped the file in that way.
 */
export function findUnseenLocks(
  processes: readonly Process[],
  descriptors: readonly Descriptor[],
  locks: readonly FileLock[],
  refuse: Refuse,
  options: DumpOptions,
): MappedLocks {
  const found = new Map<string, 'READ' | 'WRITE'>();
  const unseen = unseenLocks(processes, descriptors, locks);
  if (unseen.length === 0) return found;
  const mapped = processes
    .filter(({ state }) => state !== 'zombie')
    .flatMap((process) =>
      (unlessVanished(() => readMaps(process.pid)) ?? []).map((map) => ({ process, map })),
    );
  for (const lock of unseen) {
    const views = mapped.filter(({ map }) => isOf(lock, map));
    const [first] = views;
    if (first === undefined || views.some((view) => isHeldOutside(lock, view))) continue;
    const own = views.find(({ process }) => process.pid === lock.pid);
    const refusal = options.fileLocks
      ? whyUnclear(lock, views, own)
      : { reason: 'it is held by way of a mapping', help: 'use --file-locks to save it' };
    if (refusal !== undefined)
      refuse({
        task: nameOf((own ?? first).process),
        object: `lock (${lock.kind}) of ${first.map.path}`,
        ...refusal,
      });
    else if (own !== undefined && lock.type !== 'UNLCK')
      found.set(keyOfMappedLock(own.process.insidePid, own.map.start), lock.type);
  }
  return found;
}

/** A mapping of a locked file. */
interface View {
  readonly process: Process;
  readonly map: Mapping;
}

const UNCLEAR =
  'no descriptor of the tree is left of the description that holds it, and whose mapping that is of does not show';

/** Why nobody could take it again as it was. */
function whyUnclear(
  lock: FileLock,
  views: readonly View[],
  own: View | undefined,
): { reason: string; help: string } | undefined {
  const help = 'keep the descriptor open while the file is mapped';
  if (lock.kind !== 'FLOCK')
    return { reason: `${UNCLEAR}; only locks by flock(2) can be taken by way of a mapping`, help };
  if (own === undefined) return { reason: `${UNCLEAR}: who took it has no mapping of the file`, help };
  // Private mappings are handed on to children, memfds are shared with whoever has one open.
  if (!own.map.perms.endsWith('s') || own.map.path.startsWith('/memfd:'))
    return { reason: `${UNCLEAR}: the file is mapped privately, or is no file`, help };
  const access = accessOf(own);
  const others = views.filter((view) => (view.process === own.process) !== (accessOf(view) === access));
  if (others.length > 0) return { reason: `${UNCLEAR}: there are several`, help };
  return undefined;
}

/** How the description behind a mapping was opened: the permission bits of its link. */
function accessOf({ process, map }: View): number | undefined {
  const path = mapFilePath(process.pid, map);
  return lstatSync(path, { throwIfNoEntry: false })?.mode;
}

function unseenLocks(
  processes: readonly Process[],
  descriptors: readonly Descriptor[],
  locks: readonly FileLock[],
): FileLock[] {
  const pids = new Set(processes.map(({ pid }) => pid));
  const held = locks.filter(
    ({ kind, waiting, pid }) => waiting === 0 && kind !== 'POSIX' && (pid === -1 || pids.has(pid)),
  );
  if (held.length === 0) return [];
  const seen = new Set(descriptors.flatMap(({ info }) => info.info.locks.map(keyOf)));
  return held.filter((lock) => !seen.has(keyOf(lock)));
}

/** Another process may have the description, and the lock would outlive the tree. */
function isHeldOutside(lock: FileLock, { process, map }: View): boolean {
  const stat = statSync(mapFilePath(process.pid, map), { bigint: true, throwIfNoEntry: false });
  if (stat === undefined) return false;
  return openersOf(stat).some(({ locks }) => locks.some((other) => keyOf(other) === keyOf(lock)));
}

function keyOf({ kind, type, pid, major, minor, inode, start, end }: FileLock): string {
  return [kind, type, pid, major, minor, inode, start, end].join();
}

function isOf(lock: FileLock, map: Mapping): boolean {
  return lock.inode === map.inode && lock.major === map.major && lock.minor === map.minor;
}
