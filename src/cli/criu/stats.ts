import type { CheckpointReport, Phase, RestoreReport } from '../../engine/options.js';
import { createMessage, type MessageOf, writeFileOfKind } from '../../image/index.js';
import { print } from '../output.js';
import type { Session } from './session.js';

/** The files stats-dump and stats-restore in the working directory. Times are in microseconds, memory in pages. */

function microseconds(time_ms: number): number {
  return Math.min(Math.round(time_ms * 1000), 0xffff_ffff);
}

function phase(phases: readonly Phase[], ...names: string[]): number {
  const time_ms = phases.reduce(
    (sum, { name, duration_ms }) => sum + (names.includes(name) ? duration_ms : 0),
    0,
  );
  return microseconds(time_ms);
}

type DumpStats = NonNullable<MessageOf<'stats-dump'>['dump']>;
type RestoreStats = NonNullable<MessageOf<'stats-restore'>['restore']>;

function dumpStats(report: CheckpointReport): Omit<DumpStats, `$${string}`> {
  // A task writes its own pages, so collecting and writing them are one step; both times are its time.
  const memory = phase(report.phases, 'memory');
  return {
    freezingTime: microseconds(report.freezing_ms),
    frozenTime: microseconds(report.frozen_ms),
    memdumpTime: memory,
    memwriteTime: memory,
    pagesScanned: BigInt(report.privatePages),
    pagesSkippedParent: 0n,
    pagesWritten: BigInt(report.privatePages),
    irmapResolve: 0,
    pagesLazy: 0n,
    pagePipes: 0n,
    pagePipeBufs: 0n,
    shpagesScanned: BigInt(report.sharedPages),
    shpagesSkippedParent: 0n,
    shpagesWritten: BigInt(report.sharedPages),
  };
}

function restoreStats(report: RestoreReport): Omit<RestoreStats, `$${string}`> {
  return {
    pagesCompared: 0n,
    pagesSkippedCow: 0n,
    forkingTime: phase(report.phases, 'births'),
    restoreTime: microseconds(report.total_ms),
    pagesRestored: BigInt(report.pages),
  };
}

export function writeDumpStats({ options }: Session, report: CheckpointReport): void {
  const dump = dumpStats(report);
  writeFileOfKind('stats-dump', 'stats-dump', [createMessage('stats-dump', { dump })]);
  if (!options.displayStats) return;
  print('Displaying dump stats:');
  print(`Freezing time: ${dump.freezingTime} us`);
  print(`Frozen time: ${dump.frozenTime} us`);
  print(`Memory dump time: ${dump.memdumpTime} us`);
  print(`Memory write time: ${dump.memwriteTime} us`);
  print(`Memory pages scanned: ${pages(dump.pagesScanned)}`);
  print(`Memory pages skipped from parent: ${pages(dump.pagesSkippedParent)}`);
  print(`Memory pages written: ${pages(dump.pagesWritten)}`);
  print(`Lazy memory pages: ${pages(dump.pagesLazy)}`);
}

export function writeRestoreStats({ options }: Session, report: RestoreReport): void {
  const restore = restoreStats(report);
  writeFileOfKind('stats-restore', 'stats-restore', [createMessage('stats-restore', { restore })]);
  if (!options.displayStats) return;
  print('Displaying restore stats:');
  print(`Pages compared: ${pages(restore.pagesCompared)}`);
  print(`Pages skipped COW: ${pages(restore.pagesSkippedCow)}`);
  print(`Pages restored: ${pages(restore.pagesRestored ?? 0n)}`);
  print(`Restore time: ${restore.restoreTime} us`);
  print(`Forking time: ${restore.forkingTime} us`);
}

function pages(count: bigint): string {
  return `${count} (0x${count.toString(16)})`;
}
