import { readFileSync } from 'node:fs';
import { create } from '@bufbuild/protobuf';
import { _LINUX_CAPABILITY_VERSION_3, CAP_SETPCAP } from '../../abi/capability.js';
import {
  PR_CAP_AMBIENT,
  PR_CAP_AMBIENT_CLEAR_ALL,
  PR_CAP_AMBIENT_RAISE,
  PR_CAPBSET_DROP,
  PR_CAPBSET_READ,
  PR_GET_SECUREBITS,
  PR_SET_DUMPABLE,
  PR_SET_NO_NEW_PRIVS,
  PR_SET_SECUREBITS,
  SECBIT_NO_SETUID_FIXUP,
} from '../../abi/prctl.js';
import { type creds_entry, creds_entrySchema } from '../../image/schema/index.js';
import type { Played, RestoreTask, Space, Tape, TaskState, Thread } from '../contract.js';
import { threadCore } from './core.js';

/**
 * Ids, groups, capabilities, securebits and no_new_privs, which are each thread's own. Ids are asked for on the
 * thread's tape, so that they come in the terms of its own user namespace; capability sets are in /proc/PID/status.
 */

/** Groups that fit a tape of questions; beyond it they are taken from /proc/PID/status. */
const GROUPS_ASKED = 4096;
/** setfsuid(2) with an id that is none: changes nothing and answers the present one. */
const NO_ID = -1;

interface Asked {
  readonly uids: Space;
  readonly gids: Space;
  readonly groups: Space | undefined;
}

const words = (set: bigint): number[] => [Number(set & 0xffff_ffffn), Number(set >> 32n)];
const setOf = (list: readonly number[]): bigint => BigInt(list[0] ?? 0) | (BigInt(list[1] ?? 0) << 32n);

function entryOf(thread: Thread, asked: Asked, played: Played): creds_entry {
  const { status } = thread;
  const uids = played.view(asked.uids);
  const gids = played.view(asked.gids);
  return create(creds_entrySchema, {
    uid: uids.getUint32(0, true),
    euid: uids.getUint32(4, true),
    suid: uids.getUint32(8, true),
    gid: gids.getUint32(0, true),
    egid: gids.getUint32(4, true),
    sgid: gids.getUint32(8, true),
    capInh: words(status.capInh),
    capPrm: words(status.capPrm),
    capEff: words(status.capEff),
    capBnd: words(status.capBnd),
    capAmb: words(status.capAmb),
    groups: asked.groups === undefined ? [...status.groups] : groupsIn(played.view(asked.groups)),
  });
}

function groupsIn(view: DataView): number[] {
  return Array.from({ length: Math.floor(view.byteLength / 4) }, (_, i) => view.getUint32(i * 4, true));
}

export const credentials: TaskState = {
  name: 'credentials',
  scope: 'thread',
  support:
    'all uids and gids, groups, the five capability sets, securebits, no_new_privs; thread and process keyrings are refused',

  variant: ({ status }) => String(status.groups.length),

  kernel: { members: ['cred', 'real_cred'] },

  ask(tape, thread) {
    const { length } = thread.status.groups;
    const asked: Asked = {
      uids: tape.space(12),
      gids: tape.space(12),
      groups: length > 0 && length <= GROUPS_ASKED ? tape.space(length * 4) : undefined,
    };
    const three = (space: Space) => [0, 4, 8].map((at) => ({ kind: 'inside', space, at }) as const);
    tape.call('getresuid', three(asked.uids), 0);
    tape.call('getresgid', three(asked.gids), 0);
    if (asked.groups !== undefined) tape.call('getgroups', [length, asked.groups], length);
    const fsuid = tape.call('setfsuid', [NO_ID], 'any');
    const fsgid = tape.call('setfsgid', [NO_ID], 'any');
    const securebits = tape.call('prctl', [PR_GET_SECUREBITS, 0, 0, 0, 0]);
    return (played, thread) => {
      const entry = entryOf(thread, asked, played);
      entry.fsuid = Number(BigInt.asUintN(32, played.result(fsuid)));
      entry.fsgid = Number(BigInt.asUintN(32, played.result(fsgid)));
      entry.secbits = Number(played.result(securebits));
      if (thread.status.noNewPrivs) entry.noNewPrivs = 1;
      threadCore(thread.core).creds = entry;
    };
  },

  restore(task, tape) {
    const { creds } = threadCore(task.core);
    if (creds === undefined) return;
    restoreIds(tape, creds);
    restoreCapabilities(tape, creds, task);
    if (creds.noNewPrivs !== 0) tape.call('prctl', [PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0], 0);
    if (!task.isLeader) restoreDumpable(task, tape);
  },
};

/** With SECBIT_NO_SETUID_FIXUP a change of ids leaves the capabilities alone; the true securebits come later. */
function restoreIds(tape: Tape, creds: creds_entry): void {
  const groups = new Uint8Array(Math.max(creds.groups.length * 4, 4));
  const view = new DataView(groups.buffer);
  creds.groups.forEach((group, index) => {
    view.setUint32(index * 4, group, true);
  });
  tape.call('prctl', [PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0], 0);
  tape.call('setgroups', [creds.groups.length, tape.space(groups)], 0);
  tape.call('setresgid', [creds.gid, creds.egid, creds.sgid], 0);
  tape.call('setfsgid', [creds.fsgid], 'any');
  tape.call('setfsgid', [NO_ID], creds.fsgid);
  tape.call('setresuid', [creds.uid, creds.euid, creds.suid], 0);
  tape.call('setfsuid', [creds.fsuid], 'any');
  tape.call('setfsuid', [NO_ID], creds.fsuid);
}

/**
 * The order is the kernel's (security/commoncap.c): inheritable bits outside the bounding set have to be there before
 * that shrinks; ambient ones need their permitted and inheritable bits, and a securebit may forbid them; dropping
 * from the bounding set and setting securebits take CAP_SETPCAP, which goes last.
 */
function restoreCapabilities(tape: Tape, creds: creds_entry, task: RestoreTask): void {
  const permitted = setOf(creds.capPrm);
  const effective = setOf(creds.capEff);
  const inheritable = setOf(creds.capInh);
  const ambient = setOf(creds.capAmb);
  const last = lastCapability();
  if (permitted >> BigInt(last + 1) !== 0n)
    throw new Error(
      `${task.name} has capabilities above ${last}, which this kernel does not know; a newer kernel would help`,
    );
  const working = 1n << BigInt(CAP_SETPCAP);
  capset(tape, effective | working, permitted | working, inheritable);
  tape.call('prctl', [PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0], 0);
  for (const cap of membersOf(ambient, last))
    tape.call('prctl', [PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0], 0);
  restoreBounding(tape, setOf(creds.capBnd), last, task);
  tape.call('prctl', [PR_SET_SECUREBITS, creds.secbits, 0, 0, 0], 0);
  capset(tape, effective, permitted, inheritable);
}

/** Threads are the leader's clones and have what it had: what it finds in its set they need not look for again. */
function restoreBounding(tape: Tape, bounding: bigint, last: number, task: RestoreTask): void {
  const found = task.isLeader ? 0n : setOf(threadCore(task.leaderCore).creds?.capBnd ?? []);
  for (const cap of membersOf(bounding & ~found, last))
    tape.call('prctl', [PR_CAPBSET_READ, cap, 0, 0, 0], 1);
  for (const cap of membersOf(~bounding, last)) tape.call('prctl', [PR_CAPBSET_DROP, cap, 0, 0, 0], 0);
}

/** Capabilities of a set, up to the last that there is. */
function membersOf(set: bigint, last: number): number[] {
  const members: number[] = [];
  let rest = set & ((1n << BigInt(last + 1)) - 1n);
  for (let cap = 0; rest !== 0n; cap++, rest >>= 1n) if ((rest & 1n) !== 0n) members.push(cap);
  return members;
}

/** struct __user_cap_header_struct, and two of __user_cap_data_struct (effective, permitted, inheritable). */
function capset(tape: Tape, effective: bigint, permitted: bigint, inheritable: bigint): void {
  const header = new Uint8Array(8);
  new DataView(header.buffer).setUint32(0, _LINUX_CAPABILITY_VERSION_3, true);
  const data = new Uint8Array(24);
  const view = new DataView(data.buffer);
  [effective, permitted, inheritable].forEach((set, index) => {
    const [low = 0, high = 0] = words(set);
    view.setUint32(index * 4, low, true);
    view.setUint32(12 + index * 4, high, true);
  });
  tape.call('capset', [tape.space(header), tape.space(data)], 0);
}

let knownLast: number | undefined;

function lastCapability(): number {
  knownLast ??= Number(readFileSync('/proc/sys/kernel/cap_last_cap', 'utf8'));
  return knownLast;
}

const dumpables = new WeakMap<object, Map<number, number>>();

/**
 * A change of ids resets the dumpable flag of the whole process. The leader's tape sets it again after the leader's
 * credentials; so does every other thread's, whichever comes last.
 */
function restoreDumpable(task: RestoreTask, tape: Tape): void {
  const known = dumpables.get(task.reader) ?? new Map<number, number>();
  dumpables.set(task.reader, known);
  const value = known.get(task.pid) ?? task.reader.readOptional('mm', task.pid)?.[0]?.dumpable ?? 2;
  known.set(task.pid, value);
  if (value === 0 || value === 1) tape.call('prctl', [PR_SET_DUMPABLE, value, 0, 0, 0], 0);
}
