import { F_DUPFD_CLOEXEC, F_SETFD, FD_CLOEXEC, O_CLOEXEC } from '../../abi/fcntl.js';
import type { fdinfo_entry, file_entry } from '../../image/index.js';
import type { Tape } from '../../tape/tape.js';
import type { FileKind, Holder, Result } from '../contract.js';
import { DescriptorLimitError, descriptorLimit } from '../description/limit.js';
import type { StemTaker } from '../description/taker.js';

/**
 * Rebuild a descriptor table. The kernel allocates the lowest free number (fs/file.c alloc_fd), so with numbers
 * filled in ascending order it is known beforehand where each taken descriptor lands, and only those that land
 * elsewhere are moved: dup3(n, n) would be EINVAL. The limit in force is still ours, soft and hard the same, since Node
 * raises its own at its start; the task's comes later.
 */
export function restoreTable(
  entries: readonly fdinfo_entry[],
  waiting: ReadonlySet<number>,
  tape: Tape,
  taker: StemTaker,
): void {
  const sorted = [...entries].sort((a, b) => a.fd - b.fd);
  checkNumbers(sorted);
  tape.about('descriptors');
  tape.call('close_range', [0, 0xffff_ffff, 0]);
  if (sorted.length === 0) return;
  const used = new Set(sorted.map(({ fd }) => fd));
  let own = 0;
  while (used.has(own)) own++;
  taker.restart(own);
  const filled = new Filled(own);
  const first = new Map<number, number>();
  for (const entry of sorted) {
    if (waiting.has(entry.id)) continue;
    tape.about(`descriptor ${entry.fd} (file ${entry.id})`);
    place(entry, first.get(entry.id), filled, tape, taker);
    if (!first.has(entry.id)) first.set(entry.id, entry.fd);
    filled.add(entry.fd);
  }
  tape.about('descriptors');
  taker.done();
}

/** Descriptors of files that could not be opened before tables and threads were there. */
export function completeTable(
  entries: readonly fdinfo_entry[],
  waiting: ReadonlySet<number>,
  tape: Tape,
  taker: StemTaker,
): void {
  // Whatever is lowest may be a number that one of them is to have, so they come by way of one beyond all.
  const free = Math.max(...entries.map(({ fd }) => fd)) + 1;
  taker.restart(free);
  for (const { id, fd, flags } of entries) {
    if (!waiting.has(id)) continue;
    tape.about(`descriptor ${fd} (file ${id})`);
    const taken = taker.take(`file:${id}`);
    const moved = tape.call('fcntl', [taken, F_DUPFD_CLOEXEC, free]);
    tape.call('close', [taken]);
    tape.call('dup3', [moved, fd, (flags & FD_CLOEXEC) === 0 ? 0 : O_CLOEXEC]);
    tape.call('close', [moved]);
  }
  taker.done();
}

function place(
  entry: fdinfo_entry,
  twin: number | undefined,
  filled: Filled,
  tape: Tape,
  taker: StemTaker,
): void {
  const closeOnExec = (entry.flags & FD_CLOEXEC) !== 0;
  if (twin !== undefined) {
    tape.call('dup3', [twin, entry.fd, closeOnExec ? O_CLOEXEC : 0]);
    return;
  }
  const taken: Result = taker.take(`file:${entry.id}`);
  if (filled.lowestFree === entry.fd) {
    // pidfd_getfd(2) sets close-on-exec.
    if (!closeOnExec) tape.call('fcntl', [entry.fd, F_SETFD, 0]);
    return;
  }
  tape.call('dup3', [taken, entry.fd, closeOnExec ? O_CLOEXEC : 0]);
  tape.call('close', [taken]);
}

/** Which numbers are taken, all of them added in ascending order but the one it begins with. */
class Filled {
  readonly #own: number;
  lowestFree: number;

  constructor(own: number) {
    this.#own = own;
    this.lowestFree = own === 0 ? 1 : 0;
  }

  add(fd: number): void {
    if (fd !== this.lowestFree) return;
    this.lowestFree++;
    if (this.lowestFree === this.#own) this.lowestFree++;
  }
}

function checkNumbers(sorted: readonly fdinfo_entry[]): void {
  sorted.forEach(({ fd }, index) => {
    if (fd > 0x7fff_ffff || fd === sorted[index - 1]?.fd)
      throw new RangeError(`descriptor ${fd} is in the image's table twice, or is no descriptor`);
    // RLIMIT_NOFILE limits numbers, not how many there are.
    if (fd >= descriptorLimit())
      throw new DescriptorLimitError(
        `descriptor ${fd} of the image is beyond RLIMIT_NOFILE's hard limit here, ${descriptorLimit()}: raise it (ulimit -Hn)`,
      );
  });
}

/** What kinds do where the descriptors of a process are in place; `files` are the image's by id, those that `isIts`. */
export function attachAll(
  kinds: readonly FileKind[],
  { pid, descriptors: entries }: { readonly pid: number; readonly descriptors: readonly fdinfo_entry[] },
  files: ReadonlyMap<number, file_entry>,
  tape: Tape,
  holder: Holder,
  isIts: (id: number) => boolean,
): void {
  const seen = new Set<number>();
  for (const { id, fd } of entries) {
    const entry = files.get(id);
    if (entry === undefined || seen.has(id) || !isIts(id)) continue;
    seen.add(id);
    for (const kind of kinds) {
      if (kind.attach === undefined || entry[kind.member] === undefined) continue;
      tape.about(`descriptor ${fd} (${kind.name})`);
      kind.attach(entry, fd, tape, entries, holder, pid);
    }
  }
}
