import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';

/** A process as anybody can see it in /proc. Reads go through no code of the engine: it is the one that is judged. */
export interface Resident {
  readonly pid: number;
  readonly ppid: number;
  readonly group: number;
  readonly session: number;
  readonly comm: string;
  readonly tids: readonly number[];
  /** Descriptors and what they are; numbers of sockets and pipes are the kernel's, so these only say that they are one. */
  readonly descriptors: readonly string[];
}

/** The tree below a process, parents first. */
export function census(root: number): Resident[] {
  const resident = residentOf(root);
  const children = resident.tids.flatMap((tid) =>
    readFileSync(`/proc/${root}/task/${tid}/children`, 'utf8')
      .split(' ')
      .filter((word) => word !== ''),
  );
  return [resident, ...children.flatMap((pid) => census(Number(pid)))];
}

function residentOf(pid: number): Resident {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const end = stat.lastIndexOf(')');
  const [, ppid, group, session] = stat.slice(end + 2).split(' ');
  return {
    pid,
    ppid: Number(ppid),
    group: Number(group),
    session: Number(session),
    comm: stat.slice(stat.indexOf('(') + 1, end),
    tids: readdirSync(`/proc/${pid}/task`).map(Number),
    descriptors: readdirSync(`/proc/${pid}/fd`).map((fd) => {
      const link = readlinkSync(`/proc/${pid}/fd/${fd}`);
      return `${fd} ${link.replace(/^(pipe|socket):\[\d+\]$/, '$1')}`;
    }),
  };
}

/** The pids of `tree` that exist, zombies too. */
function remaining(tree: readonly Resident[]): number[] {
  return tree.map(({ pid }) => pid).filter(exists);
}

function exists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

const POLL_MS = 1;

/** Zombies go when their parents, or the init that has taken them over, look at them. */
export async function untilGone(tree: readonly Resident[], timeout_ms: number): Promise<void> {
  const deadline = performance.now() + timeout_ms;
  for (;;) {
    const pids = remaining(tree);
    if (pids.length === 0) return;
    if (performance.now() > deadline)
      throw new Error(`pids ${pids.join(', ')} are still there ${timeout_ms / 1000} s after the kill`);
    await pause(POLL_MS);
  }
}

/** What of two looks at a tree differs, in words; undefined when nothing does. The root's parent may differ. */
export function difference(before: readonly Resident[], after: readonly Resident[]): string | undefined {
  const say = (tree: readonly Resident[]): string[] =>
    tree.map((resident, index) => JSON.stringify(index === 0 ? { ...resident, ppid: 0 } : resident));
  const old = say(before).sort();
  const now = say(after).sort();
  if (old.length !== now.length) return `${old.length} processes before, ${now.length} after`;
  const index = old.findIndex((text, at) => text !== now[at]);
  return index < 0 ? undefined : `before ${old[index]}\nafter  ${now[index]}`;
}
