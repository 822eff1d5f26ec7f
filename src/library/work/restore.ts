import { existsSync, lstatSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { restore } from '../../engine/restore.js';
import { CHECKSUMS_FILE, ImageError, ImageReader } from '../../image/index.js';
import type { ParsedOptions } from '../requests.js';
import type { RestoreResult } from '../results.js';
import { Verification } from '../verification.js';
import type { OnPhase } from './handlers.js';
import { problemsOf } from './inspect.js';

/** A restore; `onPhase` may throw to call it off as long as the tree stands still. */
export function restoreTree(options: ParsedOptions<'restore'>, onPhase: OnPhase): RestoreResult {
  const { directory, trust, verify } = options;
  if (verify) {
    onPhase('verify');
    verifyAll(directory, trust);
  }
  const isUnverified = !verify && hasChecksums(directory);
  const isSmall = isUnverified && sizeOf(directory) <= SMALL_BYTES;
  using verification = isUnverified && !isSmall ? new Verification(directory, trust) : undefined;
  const report = restore({
    directory,
    trust,
    verify,
    sibling: false,
    leaveStopped: options.leave_stopped,
    shellJob: options.shell_job,
    external: options.external,
    tcpClose: options.tcp_close,
    networkLock: options.network_lock,
    inheritFds: new Map(Object.entries(options.inherit_fds)),
    hooks: {
      phase: onPhase,
      beforeResume: () => (isSmall ? verifyAll(directory, trust) : verification?.join()),
    },
  });
  return {
    directory,
    pid: report.pid,
    detached: options.detach,
    processes: report.processes,
    threads: report.threads,
    pages: report.pages,
    total_ms: report.total_ms,
    phases: report.phases,
  };
}

/** Up to here it takes less time to compare checksums than to start a thread for it. */
const SMALL_BYTES = 8 * 1024 * 1024;

function sizeOf(directory: string): number {
  return readdirSync(directory).reduce((sum, name) => sum + lstatSync(path.join(directory, name)).size, 0);
}

function hasChecksums(directory: string): boolean {
  return existsSync(path.join(directory, CHECKSUMS_FILE));
}

/** @throws ImageError with the first problem, before any process exists */
function verifyAll(directory: string, trust: boolean): void {
  using reader = ImageReader.open(directory, { trust });
  if (!reader.list().includes(CHECKSUMS_FILE))
    throw new ImageError(
      reader.directory,
      'has no checksums to verify (it was made with --no-checksums, or by CRIU)',
    );
  const [problem, ...others] = problemsOf(reader);
  if (problem === undefined) return;
  const more = others.length === 0 ? '' : ` (and ${others.length} more; see inspect --verify)`;
  throw new ImageError(
    problem.file,
    `${problem.message}${more}`,
    problem.offset_bytes === null ? {} : { offset: problem.offset_bytes },
  );
}
