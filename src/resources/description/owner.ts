import { create } from '@bufbuild/protobuf';
import {
  F_GETOWN_EX,
  F_GETOWNER_UIDS,
  F_GETSIG,
  F_OWNER_PGRP,
  F_OWNER_TID,
  F_SETOWN_EX,
  F_SETSIG,
} from '../../abi/fcntl.js';
import { type fown_entry, fown_entrySchema } from '../../image/index.js';
import { scratch } from '../../kernel/memory.js';
import { readStatus } from '../../kernel/procfs/status.js';
import type { Descriptor, DumpContext, Holder, Tape } from '../contract.js';
import { fcntl, isPathOnly } from './calls.js';

/**
 * Who gets a description's SIGIO (fcntl(2) F_SETOWN_EX, F_SETSIG), and with whose rights it is sent: the kernel keeps
 * the uid and euid of whoever set the owner (fs/fcntl.c f_modown).
 */
export function dumpOwner({ fd, info }: Descriptor, taken: number, context: DumpContext): fown_entry {
  const none = nobody(0);
  // O_PATH descriptors know none of these calls, and directories and mappings are no descriptors.
  if (fd < 0 || isPathOnly(info.info.flags)) return none;
  none.signum = fcntl(taken, F_GETSIG);
  fcntl(taken, F_GETOWN_EX, scratch.address);
  const type = scratch.view.getInt32(0, true);
  const pid = scratch.view.getInt32(4, true);
  if (pid === 0) return none;
  fcntl(taken, F_GETOWNER_UIDS, scratch.address);
  none.uid = scratch.view.getUint32(0, true);
  none.euid = scratch.view.getUint32(4, true);
  none.pidType = type;
  none.pid = insideId(type, pid, context);
  return none;
}

/** Nobody gets signals; `signum` is the one that F_GETSIG tells. */
export function nobody(signum: number): fown_entry {
  return create(fown_entrySchema, { uid: 0, euid: 0, signum, pidType: 0, pid: 0 });
}

/** The id in the tree's innermost pid namespace, which is what images hold. */
function insideId(type: number, pid: number, context: DumpContext): number {
  for (const process of context.processes) {
    if (type === F_OWNER_PGRP) {
      const { status } = process.leader;
      if (status.nsPgid[0] === pid) return status.nsPgid.at(-1) ?? pid;
    } else if (process.pid === pid) return process.insidePid;
    else if (type === F_OWNER_TID) {
      const thread = process.threads.find(({ tid }) => tid === pid);
      if (thread !== undefined) return thread.insideTid;
    }
  }
  return readStatus(pid).nsPid.at(-1) ?? pid;
}

/** An owner to set once the processes exist. */
interface Owned {
  readonly slot: number;
  readonly fown: fown_entry;
  readonly note: string;
}

/** Owners wait in the holder's state: a process that is not there yet cannot be one (ESRCH). */
const owners = {};

export function restoreOwner(key: string, fown: fown_entry | undefined, holder: Holder): void {
  if (fown === undefined || (fown.pid === 0 && fown.signum === 0)) return;
  ownersOf(holder).push({ slot: holder.slot(key), fown, note: `owner of ${key}` });
}

function ownersOf(holder: Holder): Owned[] {
  return holder.state<Owned[]>(owners, () => []);
}

/** Entries for the holder that set all owners; every process of the image exists by then. */
export function setOwners(holder: Holder, tape: Tape): void {
  for (const { slot, fown, note } of ownersOf(holder)) {
    tape.about(note);
    if (fown.signum !== 0) tape.call('fcntl', [slot, F_SETSIG, fown.signum]);
    setOwner(slot, fown, tape);
  }
}

/** Entries that make whom `fown` says, if anybody, the owner of a description that a privileged task has as `fd`. */
export function setOwner(fd: number, fown: fown_entry, tape: Tape): void {
  if (fown.pid === 0) return;
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, fown.pidType, true);
  view.setInt32(4, fown.pid, true);
  const strangers = fown.uid !== 0 || fown.euid !== 0;
  // The saved uid stays 0, so that the capabilities come back with the euid (capabilities(7)).
  if (strangers) tape.call('setresuid', [fown.uid, fown.euid, 0]);
  tape.call('fcntl', [fd, F_SETOWN_EX, tape.space(bytes)]);
  if (strangers) tape.call('setresuid', [0, 0, 0]);
}
