import { SHM_EXEC, SHM_RDONLY } from '../../abi/ipc.js';
import * as M from '../../abi/mman.js';
import * as P from '../../abi/prctl.js';
import type { vma_entry } from '../../image/schema/index.js';
import type { Tape } from '../../tape/tape.js';
import type { AddressRange, ProcessImage, Taker } from '../contract.js';
import { restoreRings } from './aio.js';
import { restoreExtras } from './extras.js';
import { freeRangeOf } from './gap.js';
import { isGuard, isKernel, isLate, isRing, isShared, isSysv, mmOf, spanOfEntry } from './image-memory.js';
import { cut, loadedOf } from './inherit.js';
import { earlyVmas, inheritedBy } from './load.js';
import { lockMapped, mapVma } from './map.js';
import { eachRunOfProcess, readRunsTo } from './runs.js';
import { segmentsOf } from './segments.js';
import { Taken } from './taken.js';
import { mapUrings } from './uring.js';
import { placeVdso } from './vdso.js';
import { PAGE } from './vma.js';

/** What is not inherited, or must not be: from here on an address space is its process's own. */
export function finishMemory(image: ProcessImage, tape: Tape, taker: Taker, workspace: AddressRange): void {
  const taken = new Taken(tape, taker);
  mapLate(image, tape, taken);
  mapShared(image, tape, taken);
  attachSegments(image, tape, workspace);
  // An old vDSO is patched while it still is writable.
  placeVdso(image, tape, workspace);
  mapOldRings(image, tape, taken);
  restoreRings(image, tape, taken);
  mapUrings(image, tape, taken, workspace);
  protect(image, tape);
  advise(image, tape);
  bounds(image, tape, taken);
  restoreExtras(image, tape);
  taken.close();
  tape.about(undefined);
}

/** Huge pages, with their contents. */
function mapLate(image: ProcessImage, tape: Tape, taken: Taken): void {
  const late = mmOf(image).vmas.filter(isLate);
  if (late.length === 0) return;
  tape.about('huge pages');
  const runs = cut(eachRunOfProcess(image), late.map(spanOfEntry));
  const loaded = loadedOf(image);
  const writable = M.PROT_READ | M.PROT_WRITE;
  for (const vma of late)
    mapVma(tape, taken, image.reader, vma, loaded.has(vma) ? vma.prot | writable : vma.prot);
  readRunsTo(tape, runs, taken.pagesOf(image.reader));
  for (const vma of late) if (loaded.has(vma) && (vma.prot & writable) !== writable) setProtection(tape, vma);
}

function mapShared(image: ProcessImage, tape: Tape, taken: Taken): void {
  tape.about('shared mappings');
  for (const vma of mmOf(image).vmas) {
    if (!isShared(vma) || isGuard(vma)) continue;
    mapVma(tape, taken, image.reader, vma, vma.prot);
    lockMapped(image, vma, tape, taken);
  }
}

/** shmat(2) attaches the whole segment; where a mapping is a part of one, that is moved to its place. */
function attachSegments(image: ProcessImage, tape: Tape, workspace: AddressRange): void {
  const { vmas } = mmOf(image);
  const attached = vmas.filter(isSysv);
  if (attached.length === 0) return;
  tape.about('System V segments');
  const sizes = new Map(segmentsOf(image.reader).map(({ shmid, size }) => [BigInt(shmid), BigInt(size)]));
  for (const vma of attached) {
    const { start, end, shmid, pgoff, prot } = vma;
    const size = ((sizes.get(shmid) ?? end - start) + PAGE - 1n) & ~(PAGE - 1n);
    const flags =
      ((prot & M.PROT_WRITE) === 0 ? SHM_RDONLY : 0) | ((prot & M.PROT_EXEC) === 0 ? 0 : SHM_EXEC);
    if (pgoff === 0n && end - start === size) tape.call('shmat', [shmid, start, flags], start);
    else attachPart(tape, vma, flags, size, freeRangeOf(vmas, workspace, size, image.name));
    if (prot === M.PROT_NONE) setProtection(tape, vma);
  }
}

function attachPart(tape: Tape, vma: vma_entry, flags: number, size: bigint, at: bigint): void {
  const { start, end, shmid, pgoff } = vma;
  const length = end - start;
  tape.call('shmat', [shmid, at, flags], at);
  tape.call('mremap', [at + pgoff, length, length, M.MREMAP_MAYMOVE | M.MREMAP_FIXED, start], start);
  tape.call('munmap', [at, size]);
}

function setProtection(tape: Tape, { start, end, prot }: vma_entry): void {
  tape.call('mprotect', [start, end - start, prot]);
}

/** Private memory was writable while it was filled, and what is inherited may have been another's. */
function protect(image: ProcessImage, tape: Tape): void {
  tape.about('protection');
  const vmas = earlyVmas(image);
  const loaded = loadedOf(image);
  const inherited = inheritedBy(image);
  const writable = M.PROT_READ | M.PROT_WRITE;
  for (const vma of vmas) {
    const isFinal = !inherited.has(vma) && (!loaded.has(vma) || (vma.prot & writable) === writable);
    if (!isFinal) setProtection(tape, vma);
  }
}

/** What a child has of its parent's ring is memory it can look at; with no context it will never change. */
function mapOldRings(image: ProcessImage, tape: Tape, taken: Taken): void {
  const { aios, vmas } = mmOf(image);
  const old = vmas.filter((vma) => isRing(vma) && !aios.some(({ id }) => id === vma.start));
  if (old.length === 0) return;
  tape.about('rings without a context');
  const flags = M.MAP_PRIVATE | M.MAP_ANONYMOUS | M.MAP_FIXED;
  for (const { start, end } of old)
    tape.call('mmap', [start, end - start, M.PROT_READ | M.PROT_WRITE, flags, -1, 0], start);
  const runs = cut(eachRunOfProcess(image), old.map(spanOfEntry));
  readRunsTo(tape, runs, taken.pagesOf(image.reader));
}

const ADVICE = [
  M.MADV_SEQUENTIAL,
  M.MADV_RANDOM,
  M.MADV_DONTFORK,
  M.MADV_DONTDUMP,
  M.MADV_MERGEABLE,
  M.MADV_HUGEPAGE,
  M.MADV_NOHUGEPAGE,
  M.MADV_WIPEONFORK,
];

function advise(image: ProcessImage, tape: Tape): void {
  tape.about('advice, guards and locks');
  const { vmas } = mmOf(image);
  for (const vma of vmas) {
    if (isKernel(vma)) continue;
    const { start, end, madv } = vma;
    for (const advice of ADVICE)
      if ((madv & (1n << BigInt(advice))) !== 0n) tape.call('madvise', [start, end - start, advice]);
  }
  for (const vma of vmas)
    if (isGuard(vma)) tape.call('madvise', [vma.start, vma.end - vma.start, M.MADV_GUARD_INSTALL]);
  for (const { start, end, flags } of vmas) {
    if ((flags & M.MAP_LOCKED) === 0) continue;
    // The first tells whether it may be locked; the second also faults pages in, and fails where there can be none.
    tape.call('mlock2', [start, end - start, M.MLOCK_ONFAULT]);
    tape.call('mlock2', [start, end - start, 0], 'any');
  }
}

const AUXV_WORDS_MAX = 64;

/** struct prctl_mm_map, linux/prctl.h: eleven addresses, the auxiliary vector and the executable. */
function bounds(image: ProcessImage, tape: Tape, taken: Taken): void {
  tape.about('bounds and executable');
  const mm = mmOf(image);
  const words = mm.mmSavedAuxv.slice(0, AUXV_WORDS_MAX);
  const auxv = tape.space(new Uint8Array(BigUint64Array.from(words).buffer));
  const fields = BigUint64Array.of(
    mm.mmStartCode,
    mm.mmEndCode,
    mm.mmStartData,
    mm.mmEndData,
    mm.mmStartBrk,
    mm.mmBrk,
    mm.mmStartStack,
    mm.mmArgStart,
    mm.mmArgEnd,
    mm.mmEnvStart,
    mm.mmEnvEnd,
    0n,
    BigInt(words.length * 8),
  );
  const map = tape.space(new Uint8Array(fields.buffer));
  tape.pointer(map, 88, auxv);
  tape.copy(taken.get(`file:${mm.exeFileId}`), map, 100);
  tape.call('prctl', [P.PR_SET_MM, P.PR_SET_MM_MAP, map, map.length, 0]);
  if (mm.thpDisabled) tape.call('prctl', [P.PR_SET_THP_DISABLE, 1, 0, 0, 0]);
}

/** 2 cannot be set, and is what a change of credentials left or will leave. */
export function restoreDumpable(image: ProcessImage, tape: Tape): void {
  const mm = mmOf(image);
  if (!Object.hasOwn(mm, 'dumpable') || mm.dumpable > P.SUID_DUMP_USER) return;
  tape.about('dumpable');
  tape.call('prctl', [P.PR_SET_DUMPABLE, mm.dumpable, 0, 0, 0]);
  tape.about(undefined);
}
