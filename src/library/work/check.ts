import { refusalsOf } from '../../engine/check.js';
import { fileKinds } from '../../engine/registry.js';
import type { Refusal } from '../../resources/contract.js';
import { HOST_FEATURES, probeFeature } from '../host/features.js';
import type { ParsedOptions } from '../requests.js';
import type { CheckResult } from '../results.js';
import { locksEverywhere } from './locks.js';
import { assertProcess } from './process.js';

/** What this host offers and, for a pid, every reason why the tree below it could not be saved. Only reads. */
export function checkHost(options: ParsedOptions<'check'>): CheckResult {
  const host = HOST_FEATURES.map((feature) => probeFeature(feature, fileKinds));
  const hostOk = host.every(({ required, state }) => !required || state === 'ok');
  const { pid } = options;
  const locks = locksEverywhere();
  if (pid === undefined) return { ok: hostOk, host, pid: null, refusals: null, locks };
  assertProcess(pid);
  const items = treeRefusals(pid, options);
  return { ok: hostOk && items.length === 0, host, pid, refusals: items, locks };
}

function treeRefusals(pid: number, options: ParsedOptions<'check'>): Refusal[] {
  return refusalsOf(pid, {
    shellJob: options.shell_job,
    linkRemap: options.link_remap,
    ghostLimit: options.ghost_limit_bytes,
    external: options.external,
    outsidePipes: options.outside_pipes,
    irmapScanPaths: options.irmap_scan_paths,
    leaveRunning: false,
    fileLocks: options.file_locks,
    tcpEstablished: options.tcp_established,
    tcpClose: options.tcp_close,
    skipInFlight: options.skip_in_flight,
    networkLock: options.network_lock,
    extUnixSk: options.ext_unix_sk,
  });
}
