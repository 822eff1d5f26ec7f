import { fstatSync } from 'node:fs';
import type { RestoreReport, RestoreRequest } from '../../engine/options.js';
import { restore } from '../../engine/restore.js';
import { waitFor } from '../../kernel/wait.js';
import { checkCpuinfo } from './cpuinfo.js';
import { locksNetwork, refuseOptions } from './dump.js';
import { execute } from './exec.js';
import { runScripts } from './scripts.js';
import { CriuError, reportStatus, type Session, writePidfile } from './session.js';
import { writeRestoreStats } from './stats.js';

/** `criu restore`: 0 once the tree runs, or has ended without `-d`; `command` is what --exec-cmd becomes. */
export function runRestore(session: Session, command: readonly string[]): number {
  const { options, log } = session;
  refuseOptions(session, 'restore');
  if (options.restoreSibling && !options.restoreDetached)
    throw new CriuError('options', '--restore-sibling only makes sense with --restore-detached');
  if (options.tree !== undefined) log.warn('options', '--tree means nothing to a restore');
  for (const [key, fd] of options.inheritFds) checkInherited(key, fd, session);
  if (options.cpuCap.image) checkCpuinfo(session);

  if (runScripts(session, 'pre-restore', undefined) !== 0)
    throw new CriuError('restore', 'Pre-restore script failed');
  const report = restore(restoreRequest(session));
  finish(session, report);
  if (options.execCmd) return execute(command);
  if (!options.restoreDetached) waitForEnd(report.pid);
  return 0;
}

function checkInherited(key: string, fd: number, { log }: Session): void {
  try {
    fstatSync(fd);
  } catch (error) {
    throw new CriuError('files', `--inherit-fd fd[${fd}]:${key}: descriptor ${fd} is not open`, {
      cause: error,
    });
  }
  log.info(`File ${key} will be restored from inherited descriptor ${fd}`);
}

function restoreRequest(session: Session): RestoreRequest {
  const { options, log, imagesDir } = session;
  return {
    directory: imagesDir,
    // CRIU does not ask who owns an image; whoever runs `criu` has decided that.
    trust: true,
    verify: false,
    sibling: options.restoreSibling,
    leaveStopped: options.finalState === 'stopped',
    shellJob: options.shellJob,
    inheritFds: options.inheritFds,
    external: options.external,
    joins: options.joinNs,
    extUnixSk: options.extUnixSk,
    tcpClose: options.tcpClose,
    refuseConnections: !options.tcpEstablished,
    networkLock: locksNetwork(options) ? 'nftables' : 'skip',
    hooks: {
      phase: (name) => log.info(`Restore phase: ${name}`),
      beforeResume: (pid) => beforeResume(session, pid),
    },
  };
}

/** The tree stands still: what fails here ends it. */
function beforeResume(session: Session, pid: number): void {
  const { options, log } = session;
  if (runScripts(session, 'post-restore', pid) !== 0)
    throw new CriuError('restore', 'Post-restore script failed');
  if (options.pidfile !== undefined) writePidfile(options.pidfile, pid);
  const status = runScripts(session, 'pre-resume', pid);
  if (status !== 0) log.error('restore', `Pre-resume script answered ${status}`);
}

function finish(session: Session, report: RestoreReport): void {
  const { log, options } = session;
  for (const { name, duration_ms } of report.phases)
    log.debug(`Phase ${name} took ${duration_ms.toFixed(3)} ms`);
  if (options.logPid) log.info('There are no logs of single processes: no code of criu runs in them');
  log.info(`Restore finished successfully in ${report.total_ms.toFixed(3)} ms. Tasks resumed.`);
  writeRestoreStats(session, report);
  const status = runScripts(session, 'post-resume', report.pid);
  if (status !== 0) log.error('restore', `Post-resume script answered ${status}`);
  reportStatus(session);
}

/** How the root ends is no failure of the restore. */
function waitForEnd(pid: number): void {
  for (;;) if (waitFor(pid).kind !== 'stopped') return;
}
