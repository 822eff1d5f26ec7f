import { type AddressRange, VDSO_ROOM } from '../../resources/contract.js';
import { CODE_SIZE, PAGE_SIZE } from '../../tape/layout.js';
import { ELF_ROOM } from '../../tape/stem.js';
import { RestoreError } from '../errors.js';
import type { RestoreProcess } from './images.js';

/**
 * The workspace of a tree being restored: one range of addresses that no process of the image uses, the same in all
 * of them, since children are forked with it. The leader's slice comes first, then one for each further thread.
 */
export const THREAD_SLICE = 64 * 1024;
const LEADER_SLICE = 16 * 1024 * 1024;
/** An iovec, and a share of the entry that uses it. */
const BYTES_PER_RUN = 32;
const LOWEST = 0x1000_0000n;
const HIGHEST = 0x7000_0000_0000n;

export interface RestoreWorkspace extends AddressRange {
  readonly leaderSlice: number;
}

/** `runs` is the largest number of page runs of one process. */
export function chooseWorkspace(processes: readonly RestoreProcess[], runs: number): RestoreWorkspace {
  const threads = Math.max(...processes.map((process) => process.threads.length));
  const leaderSlice = roundUp(LEADER_SLICE + runs * BYTES_PER_RUN);
  const size = BigInt(roundUp(CODE_SIZE + leaderSlice + threads * THREAD_SLICE + VDSO_ROOM));
  const vmas = processes
    .flatMap((process) => process.mm?.vmas ?? [])
    .map(({ start, end }) => ({ start, end }))
    .sort((a, b) => (a.start < b.start ? -1 : 1));
  const need = size + 2n * ELF_ROOM;
  let last = LOWEST;
  for (const vma of [...vmas, { start: HIGHEST, end: HIGHEST }]) {
    if (vma.start > last && vma.start - last >= need) return { address: last + ELF_ROOM, size, leaderSlice };
    if (vma.end > last) last = vma.end;
  }
  throw new RestoreError('the processes of the image leave no address range free for the restore');
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;
}

/** Offset of a thread's slice in the workspace; 0 is the leader. */
export function sliceOffset(workspace: RestoreWorkspace, index: number): number {
  return index === 0 ? CODE_SIZE : CODE_SIZE + workspace.leaderSlice + (index - 1) * THREAD_SLICE;
}

export function sliceSize(workspace: RestoreWorkspace, index: number): number {
  return index === 0 ? workspace.leaderSlice : THREAD_SLICE;
}
