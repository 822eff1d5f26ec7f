import { dump } from '../../engine/dump.js';
import type { ParsedOptions } from '../requests.js';
import type { CheckpointResult } from '../results.js';
import type { OnPhase } from './handlers.js';
import { assertProcess } from './process.js';

/** A checkpoint of a tree; `onPhase` may throw before the commit to call it off. */
export function checkpointTree(options: ParsedOptions<'checkpoint'>, onPhase: OnPhase): CheckpointResult {
  const start = performance.now();
  const { pid, directory, afterwards } = options;
  assertProcess(pid);
  const report = dump({
    pid,
    directory,
    afterwards,
    timeout_ms: options.timeout_ms,
    checksums: options.checksums,
    durable: options.durable,
    rehearsed: true,
    overwrite: options.overwrite,
    shellJob: options.shell_job,
    linkRemap: options.link_remap,
    ghostLimit: options.ghost_limit_bytes,
    external: options.external,
    outsidePipes: options.outside_pipes,
    leaveRunning: afterwards === 'run',
    fileLocks: options.file_locks,
    tcpEstablished: options.tcp_established,
    tcpClose: options.tcp_close,
    skipInFlight: options.skip_in_flight,
    networkLock: options.network_lock,
    hooks: { phase: onPhase },
  });
  return {
    directory: report.directory,
    pid,
    afterwards,
    processes: report.processes,
    threads: report.threads,
    freezing_ms: report.freezing_ms,
    frozen_ms: report.frozen_ms,
    total_ms: performance.now() - start,
    stops: report.stops,
    phases: report.phases,
    private_pages: report.privatePages,
    shared_pages: report.sharedPages,
    image_bytes: report.image_bytes,
    files: Object.fromEntries(report.files),
  };
}
