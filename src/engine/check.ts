import { PF_EXITING } from '../abi/process.js';
import { Network } from '../kernel/namespace.js';
import { ProcfsError, unlessVanished } from '../kernel/procfs/error.js';
import { type NamespaceLink, readNamespace, readNamespaces } from '../kernel/procfs/ns.js';
import { readStat } from '../kernel/procfs/stat.js';
import { type DumpOptions, nameOf, type Process, type Refusal, type Refuse } from '../resources/contract.js';
import { checkFiles, type DescriptorSurvey } from '../resources/file/index.js';
import type { NetworkPlan } from '../resources/namespace/index.js';
import { RestoreError } from './errors.js';
import { checkLoan } from './lend.js';
import { look } from './look.js';
import { fileKinds, memory, network, taskStates } from './registry.js';
import { arrangeBirths, type Kin } from './restore/births.js';

const LOOKS_MAX = 20;

/** What a dump that follows has use for. */
export interface Prepared {
  readonly survey?: DescriptorSurvey;
  readonly plan?: NetworkPlan;
}

/**
 * Every reason why the tree below `root` could not be saved. Only reads. The tree runs meanwhile, so what was seen a
 * moment ago may have ended: then it is looked at again. Nor is it seen all at once: a child that was not there yet may
 * have the other end of a pipe. So a reason is one if another look finds it too. `survey` is of the last look.
 */
export function refusalsOf(
  root: number,
  options: DumpOptions,
  { survey, plan: made }: Prepared = {},
): Refusal[] {
  let before: ReadonlySet<string> | undefined;
  using entered = Network.of(root);
  const plan = made ?? network.plan(entered.inode, entered.home, options);
  for (let looks = 1; ; looks++) {
    try {
      const found = refusals(look(root), options, plan, survey);
      if (found.length === 0 || looks >= LOOKS_MAX) return found;
      const known = before;
      const lasting = known === undefined ? [] : found.filter((refusal) => known.has(keyOf(refusal)));
      if (lasting.length > 0) return lasting;
      before = new Set(found.map(keyOf));
    } catch (error) {
      if (!(error instanceof ProcfsError) || !isEnding(error) || looks >= LOOKS_MAX) throw error;
    }
  }
}

function keyOf({ task, object, reason }: Refusal): string {
  return JSON.stringify([task, object, reason]);
}

/** The links of a task that is ending are denied even to root. */
function isEnding(error: ProcfsError): boolean {
  return error.vanished || error.errno === 'EACCES';
}

function refusals(
  processes: readonly Process[],
  options: DumpOptions,
  plan: NetworkPlan,
  survey: DescriptorSurvey | undefined,
): Refusal[] {
  survey?.begin();
  const found: Refusal[] = [];
  const refuse = (refusal: Refusal): void => {
    found.push(refusal);
  };
  checkKinship(processes, options, refuse);
  network.check(processes, plan, options, refuse);
  for (const process of processes) {
    const headless = headlessRefusal(process);
    if (headless !== undefined) refuse(headless);
    if (process.state === 'zombie' || (process.stat.flags & PF_EXITING) !== 0) continue;
    // Who ends while we look is no obstacle any more.
    unlessVanished(() => checkProcess(process, options, refuse));
  }
  checkFiles(processes, fileKinds, refuse, options, survey);
  return found;
}

/** A process goes on when its first thread has ended, but shows nothing of itself any more by what is asked of that one. */
export function headlessRefusal(process: Process): Refusal | undefined {
  if (process.state !== 'zombie' || process.stat.num_threads <= 1) return undefined;
  return {
    task: nameOf(process),
    object: 'the process',
    reason: `its first thread has ended, and ${process.stat.num_threads - 1} others have not`,
    help: 'end them, or let the first thread wait for them',
  };
}

function checkProcess(process: Process, options: DumpOptions, refuse: Refuse): void {
  for (const thread of process.threads)
    for (const state of taskStates)
      if (state.scope === 'thread' || thread.isLeader) state.check?.(thread, refuse, options);
  memory.check(process, refuse, options);
  checkLoan(process, refuse);
}

/** Pids that must never be frozen or killed by us: ourselves, our ancestors, and the first process of our namespace. */
function forbiddenPids(): Set<number> {
  const pids = new Set([1]);
  for (let pid = process.pid; pid > 0; pid = readStat(pid).ppid) pids.add(pid);
  return pids;
}

/** Who the processes are to each other and to us, and where they live. */
function checkKinship(processes: readonly Process[], options: DumpOptions, refuse: Refuse): void {
  const forbidden = forbiddenPids();
  const own = readNamespaces(process.pid);
  const [root] = processes;
  // A tree may have clocks of its own, as one that came from another boot does; all of it the same.
  const clocks = root === undefined ? undefined : unlessVanished(() => readNamespace(root.pid, 'time'));
  if (clocks !== undefined) for (const name of ['time', 'time_for_children']) own.set(name, clocks);
  for (const member of processes) {
    if (forbidden.has(member.pid))
      refuse({
        task: nameOf(member),
        object: 'the process',
        reason: 'it is this process, an ancestor of it, or pid 1',
      });
    if (member.state !== 'zombie') unlessVanished(() => checkNamespaces(member, own, refuse));
  }
  if (root === undefined) return;
  const { session } = root.stat;
  if (session !== root.pid && !options.shellJob)
    refuse({
      task: nameOf(root),
      object: `session ${session}`,
      reason: 'it is not led by the root of the tree',
      help: 'use --shell-job if it is to join the session of whoever restores it',
    });
  checkBirths(processes, refuse);
}

/** Can everybody be born into the session he is in? The restore would have to find out. */
function checkBirths(processes: readonly Process[], refuse: Refuse): void {
  const kin = new Map<Process | undefined, Kin>();
  for (const process of processes) {
    const { pid, parent, stat } = process;
    kin.set(process, { pid, parent: kin.get(parent), sid: stat.session, pgid: stat.pgrp });
  }
  try {
    arrangeBirths([...kin.values()]);
  } catch (error) {
    if (!(error instanceof RestoreError)) throw error;
    refuse({ task: 'the tree', object: 'its sessions', reason: error.message });
  }
}

/** Namespaces other than those of this process come with virtual environments; the network is seen to by its own module. */
function checkNamespaces(member: Process, own: ReadonlyMap<string, NamespaceLink>, refuse: Refuse): void {
  for (const [name, { type, inode }] of readNamespaces(member.pid)) {
    if (type === 'net' || own.get(name)?.inode === inode) continue;
    refuse({
      task: nameOf(member),
      object: `namespace ${name} (${type}:[${inode}])`,
      reason: 'it is not that of the dumping process, and namespaces cannot be saved yet',
      help: `run the dump inside of it: nsenter -t ${member.pid} --all`,
    });
  }
}
