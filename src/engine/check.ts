import { readStat } from '../kernel/procfs/stat.js';
import { nameOf, type DumpOptions, type Process, type Refusal } from '../resources/contract.js';
import { checkFiles } from '../resources/file/index.js';
import { fileKinds, memory, taskStates } from './registry.js';

/** Every reason why these processes could not be saved. Only reads. */
export function refusals(processes: readonly Process[], options: DumpOptions): Refusal[] {
  const found: Refusal[] = [];
  const refuse = (refusal: Refusal): void => {
    found.push(refusal);
  };
  const members = new Set(processes.map(({ pid }) => pid));
  for (const process of processes) {
    checkKinship(process, members, options, refuse);
    if (process.state === 'zombie') continue;
    for (const thread of process.threads)
      for (const state of taskStates) if (state.scope === 'thread' || thread.isLeader) state.check?.(thread, refuse, options);
    memory.check(process, refuse, options);
  }
  checkFiles(processes, fileKinds, refuse, options);
  return found;
}

/** Pids that must never be frozen or killed by us: ourselves, our ancestors, and the first process of our namespace. */
export function forbiddenPids(): Set<number> {
  const pids = new Set([1]);
  for (let pid = process.pid; pid > 0; pid = readStat(pid).ppid) pids.add(pid);
  return pids;
}

/** Sessions and groups have to be rebuilt from within the tree, or be the caller's. */
function checkKinship(
  process: Process,
  members: ReadonlySet<number>,
  options: DumpOptions,
  refuse: (refusal: Refusal) => void,
): void {
  const task = nameOf(process);
  if (forbiddenPids().has(process.pid))
    refuse({ task, object: 'the process', reason: 'it is this process, an ancestor of it, or pid 1' });
  const { session } = process.stat;
  if (process.parent === undefined && session !== process.pid && !members.has(session) && !options.shellJob)
    refuse({
      task,
      object: `session ${session}`,
      reason: 'its leader is not in the tree',
      help: 'use --shell-job if it is to join the session of whoever restores it',
    });
}

