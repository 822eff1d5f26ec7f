import { dump } from '../../engine/dump.js';
import type {
  Afterwards,
  CheckpointHooks,
  CheckpointOptions,
  CheckpointReport,
} from '../../engine/options.js';
import { writeCpuinfo } from './cpuinfo.js';
import { ignoredOptions, refusedOptions } from './later.js';
import type { CriuOptions } from './options.js';
import { refusePendingTraps } from './pending-trap.js';
import { runScripts } from './scripts.js';
import { CriuError, reportStatus, type Session } from './session.js';
import { writeDumpStats } from './stats.js';

/** `criu dump`: 0, 1, or the status of a post-dump script that wants the tree to go on. */
export function runDump(session: Session): number {
  const { options, log } = session;
  if (options.tree === undefined) throw new CriuError('dump', 'pid not specified');
  refuseOptions(session, 'dump');
  const pid = options.tree;
  if (runScripts(session, 'pre-dump', pid) !== 0) throw new CriuError('dump', 'Pre dump script failed');
  if (options.cpuCap.image) writeCpuinfo(session);

  refusePendingTraps(pid);
  const verdict = new Verdict(session, pid);
  const report = dump(dumpOptions(session, pid, verdict));
  const status = verdict.status ?? verdict.ask();
  if (status !== 0) {
    log.error('dump', `The post-dump script answered ${status}: the tree goes on`);
    return status;
  }
  finish(session, report);
  return 0;
}

export function refuseOptions({ options, log }: Session, verb: 'dump' | 'restore'): void {
  const refused = refusedOptions(options, verb);
  if (refused.length > 0) throw new CriuError('options', refused.join('\n'));
  for (const line of ignoredOptions(options, verb)) log.warn('options', line);
}

/** What the post-dump scripts say, once. */
class Verdict {
  readonly #session: Session;
  readonly #pid: number;
  status: number | undefined;

  constructor(session: Session, pid: number) {
    this.#session = session;
    this.#pid = pid;
  }

  ask(): number {
    this.status = runScripts(this.#session, 'post-dump', this.#pid);
    return this.status;
  }
}

const AFTERWARDS: Readonly<Record<CriuOptions['finalState'], Afterwards>> = {
  default: 'kill',
  running: 'run',
  stopped: 'stop',
};

function dumpOptions({ options, log, imagesDir }: Session, pid: number, verdict: Verdict): CheckpointOptions {
  const afterwards = AFTERWARDS[options.finalState];
  // The image is complete and the tree still stands: scripts may carry the image elsewhere, and decide.
  const committed = (): Afterwards => (verdict.ask() === 0 ? afterwards : 'run');
  const hooks: CheckpointHooks & { committed?: () => Afterwards } = {
    phase: (name) => log.info(`Dump phase: ${name}`),
    ...(options.actionScripts.length === 0 ? {} : { committed }),
  };
  return {
    pid,
    directory: imagesDir,
    afterwards,
    timeout_ms: options.timeout_s > 0 ? options.timeout_s * 1000 : Number.POSITIVE_INFINITY,
    checksums: false,
    // As with CRIU, the image reaches the disk when the kernel writes it.
    durable: false,
    overwrite: true,
    rehearsed: true,
    shellJob: options.shellJob,
    linkRemap: options.linkRemap,
    ghostLimit: options.ghostLimit_bytes,
    external: options.external,
    outsidePipes: true,
    joinable: true,
    dropEvents: true,
    irmapScanPaths: options.irmapScanPaths,
    forceIrmap: options.forceIrmap,
    dropPackets: true,
    leaveRunning: afterwards === 'run',
    fileLocks: options.fileLocks,
    tcpEstablished: options.tcpEstablished,
    extUnixSk: options.extUnixSk,
    tcpClose: options.tcpClose,
    skipInFlight: options.skipInFlight,
    networkLock: locksNetwork(options) ? 'nftables' : 'skip',
    hooks,
  };
}

export function locksNetwork({ networkLock }: CriuOptions): boolean {
  return networkLock !== 'skip' && networkLock !== 'none';
}

function finish(session: Session, report: CheckpointReport): void {
  const { log } = session;
  for (const { name, duration_ms } of report.phases)
    log.debug(`Phase ${name} took ${duration_ms.toFixed(3)} ms`);
  log.info(
    `${report.processes} processes, ${report.threads} threads, ` +
      `${report.privatePages} private and ${report.sharedPages} shared pages, frozen for ${report.frozen_ms.toFixed(3)} ms`,
  );
  writeDumpStats(session, report);
  reportStatus(session);
  log.info('Dumping finished successfully');
}
