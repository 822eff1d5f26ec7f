import { KCMP_FILES } from '../../abi/process.js';
import { readLocks } from '../../kernel/procfs/locks.js';
import { attempt } from '../../kernel/syscall.js';
import {
  type Descriptor,
  type DumpOptions,
  type FileKind,
  nameOf,
  type Process,
  type Refuse,
} from '../contract.js';
import { descriptorsOf } from '../description/open.js';
import { checkLocks } from './locks.js';
import type { DescriptorSurvey } from './survey.js';
import { unknownFile } from './unknown.js';
import { findUnseenLocks } from './unseen-locks.js';

/** Before the freeze: everything about the files of a tree that could not be saved. What is seen is noted in `survey`. */
export function checkFiles(
  processes: readonly Process[],
  kinds: readonly FileKind[],
  refuse: Refuse,
  options: DumpOptions,
  survey?: DescriptorSurvey,
): void {
  const found = new Map<FileKind, Descriptor[]>();
  for (const process of processes) {
    if (process.state === 'zombie') continue;
    checkTables(process, refuse);
    for (const descriptor of descriptorsOf(process)) {
      const kind = kinds.find((kind) => kind.recognise(descriptor));
      checkLocks(descriptor, refuse, options);
      if (kind === undefined) refuse(unknownFile(descriptor));
      else {
        kind.check?.(descriptor, refuse, options);
        survey?.add(descriptor, kind);
        const others = found.get(kind);
        if (others === undefined) found.set(kind, [descriptor]);
        else others.push(descriptor);
      }
    }
  }
  findUnseenLocks(processes, [...found.values()].flat(), readLocks(), refuse, options);
  // What is in flight may be the other end of anything; it is looked at in the freeze, and these questions asked again.
  if (isAnythingInFlight(found)) return;
  for (const [kind, descriptors] of found) kind.checkAll?.(descriptors, refuse, options);
  for (const kind of kinds) kind.checkTree?.(processes, refuse, options);
}

function isAnythingInFlight(found: ReadonlyMap<FileKind, readonly Descriptor[]>): boolean {
  return [...found.values()].some((descriptors) =>
    descriptors.some(({ info }) => (info.info.scmFds ?? 0) > 0),
  );
}

/** As `checkFiles` for one process by itself, whose pipes to others of the tree would be refused. */
export function checkDescriptors(
  process: Process,
  kinds: readonly FileKind[],
  refuse: Refuse,
  options: DumpOptions,
): void {
  checkFiles([process], kinds, refuse, { ...options, outsidePipes: true });
}

/** A thread may have a descriptor table of its own (clone(2) without CLONE_FILES); images have one a process. */
function checkTables(process: Process, refuse: Refuse): void {
  for (const thread of process.threads) {
    if (thread.isLeader) continue;
    if (attempt('kcmp', [process.pid, thread.tid, KCMP_FILES, 0, 0]) > 0)
      refuse({
        task: nameOf(thread),
        object: 'its descriptor table',
        reason: 'it is not that of its process, and images have only one a process',
      });
  }
}
