import { readFileSync } from 'node:fs';
import { createMessage, IMAGES_VERSION, type ImageWriter, type MessageOf } from '../image/index.js';
import { boottime_ns } from '../kernel/clock.js';
import { readTimeOffsets } from '../kernel/procfs/idmap.js';
import type { Inventory, Process } from '../resources/contract.js';
import type { Identities } from './identity.js';
import { offsetOf } from './restore/clock.js';

/** The images that describe the tree as a whole: pstree, ids, core, timens, cgroup and the inventory. */

function pstreeEntry(process: Process): MessageOf<'pstree'> {
  const { leader, parent, threads } = process;
  const { nsPgid, nsSid } = leader.status;
  return createMessage('pstree', {
    pid: process.insidePid,
    ppid: parent?.insidePid ?? 0,
    pgid: nsPgid.at(-1) ?? 0,
    sid: nsSid.at(-1) ?? 0,
    threads: process.state === 'zombie' ? [0] : threads.map(({ insideTid }) => insideTid),
  });
}

export function writeTree(writer: ImageWriter, processes: readonly Process[], identities: Identities): void {
  writer.write('pstree', null, processes.map(pstreeEntry));
  for (const process of processes) {
    for (const thread of process.threads) writer.write('core', thread.insideTid, [thread.core]);
    if (process.state !== 'zombie') writer.write('ids', process.insidePid, [identities.of(process)]);
  }
  const [root] = processes;
  if (root !== undefined)
    writer.write('timens', timeIdOf(root, identities), [
      createMessage('timens', { monotonic: clockOf(root, 'monotonic'), boottime: clockOf(root, 'boottime') }),
    ]);
}

/** As CRIU has it: 0 where the tree is in the dumping process's own time namespace. */
function timeIdOf(root: Process, identities: Identities): number {
  const { timeNsId } = identities.of(root);
  return timeNsId === identities.root.timeNsId ? 0 : timeNsId;
}

const SECOND = 1_000_000_000n;

/** What a clock shows to the tree, which may be in a time namespace. */
function clockOf(root: Process, clock: 'monotonic' | 'boottime'): { tvSec: bigint; tvNsec: bigint } {
  const ours = clock === 'monotonic' ? process.hrtime.bigint() : boottime_ns();
  const ahead = offsetOf(readTimeOffsets(root.pid), clock) - offsetOf(readTimeOffsets(process.pid), clock);
  return { tvSec: (ours + ahead) / SECOND, tvNsec: (ours + ahead) % SECOND };
}

export function inventoryOf(identities: Identities, inventory: Inventory): MessageOf<'inventory'> {
  return createMessage('inventory', {
    imgVersion: IMAGES_VERSION,
    fdinfoPerId: true,
    nsPerId: true,
    rootIds: identities.root,
    rootCgSet: 1,
    lsmtype: 0,
    networkLockMethod: inventory.networkLockMethod,
    ...(inventory.tcpClose ? { tcpClose: true } : {}),
    dumpUptime: BigInt(Math.floor(Number.parseFloat(readFileSync('/proc/uptime', 'utf8')) * 1e6)),
    dumpCriuRunId: inventory.dumpCriuRunId,
  });
}
