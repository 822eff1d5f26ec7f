import { statSync } from 'node:fs';
import { dump } from '../../engine/dump.js';
import type { StreamPlace } from '../../engine/options.js';
import { checkTrust } from '../../image/index.js';
import type { ParsedOptions } from '../requests.js';
import type { CheckpointResult } from '../results.js';
import type { Surroundings } from './handlers.js';
import { assertProcess } from './process.js';
import { Taken } from './taken.js';

/** A checkpoint of a tree; `onPhase` may throw before the commit to call it off. */
export function checkpointTree(
  options: ParsedOptions<'checkpoint'>,
  { onPhase, interrupt }: Surroundings,
): CheckpointResult {
  const start = performance.now();
  const { pid, directory, afterwards } = options;
  assertProcess(pid);
  using taken = new Taken(options.to?.kind === 'stream' && options.to.inherited);
  const to = options.to?.kind === 'stream' ? streamPlace(options.to, taken) : options.to;
  if (to?.kind === 'stream' && to.answers !== undefined && afterwards !== 'kill')
    throw new TypeError(
      'a tree that is to go on here cannot wait for the other end: that would make two of it',
    );
  if (to === undefined && !options.trust) refuseForeign(directory);
  const report = dump({
    pid,
    directory,
    to,
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
    irmapScanPaths: options.irmap_scan_paths,
    leaveRunning: afterwards === 'run',
    fileLocks: options.file_locks,
    tcpEstablished: options.tcp_established,
    tcpClose: options.tcp_close,
    skipInFlight: options.skip_in_flight,
    networkLock: options.network_lock,
    extUnixSk: options.ext_unix_sk,
    hooks: { phase: onPhase, interrupt },
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

/** Before anything is touched: a directory from which `restore` would not take the image. */
function refuseForeign(directory: string): void {
  const stat = statSync(directory, { throwIfNoEntry: false });
  if (stat !== undefined) checkTrust(directory, stat, '; --trust takes it, here and at the restore');
}

function streamPlace(
  to: Extract<ParsedOptions<'checkpoint'>['to'], { kind: 'stream' }>,
  taken: Taken,
): StreamPlace {
  const answers =
    to.answers === undefined ? undefined : taken.take(to.answers, 'where the other end answers');
  return { ...to, fd: taken.take(to.fd, 'the stream of the image'), answers };
}
