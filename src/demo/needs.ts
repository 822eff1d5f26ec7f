import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

/** What the demo needs of a machine, and what it can do without. */

/** The path of a program on PATH. */
export function findProgram(name: string): string | undefined {
  for (const directory of (process.env.PATH ?? '/usr/bin:/bin').split(delimiter)) {
    const file = join(directory, name);
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {}
  }
  return undefined;
}

/** Everything that is missing before anything can be started, each with what would help. */
export function missingHere(): string[] {
  const missing: string[] = [];
  if (process.platform !== 'linux' || process.arch !== 'x64')
    missing.push(`Linux on x86-64: this is ${process.platform} on ${process.arch}`);
  const uid = process.geteuid?.();
  if (uid !== 0)
    missing.push(`root: this is uid ${uid}; use "sudo npm start", or a container with --privileged`);
  for (const [program, from] of [
    ['unshare', 'util-linux'],
    ['sh', 'dash'],
    ['sed', 'sed'],
    ['mkfifo', 'coreutils'],
  ] as const)
    if (findProgram(program) === undefined) missing.push(`the program ${program} (package ${from})`);
  if (missing.length > 0) return missing;
  const { status, stderr } = spawnSync('unshare', [...NAMESPACE, 'true'], { encoding: 'utf8' });
  if (status !== 0)
    missing.push(`a pid namespace of its own: ${stderr.trim()}; in a container, start it with --privileged`);
  return missing;
}

/** The demo's processes live, and end, in a pid namespace of their own: nobody else can take their pids meanwhile. */
export const NAMESPACE = ['--pid', '--fork', '--kill-child', '--mount-proc'] as const;

/** For the move between two hosts they also have a network of their own. */
export const NETWORK = ['--net', '--mount'] as const;

/** Why nothing can be moved between two hosts here; undefined where it can. */
export function obstacleToMove(): string | undefined {
  for (const [program, from] of [
    ['ip', 'iproute2'],
    ['nsenter', 'util-linux'],
    ['bash', 'bash'],
  ] as const)
    if (findProgram(program) === undefined) return `the program ${program} (package ${from}) is missing`;
  const script = 'ip link add name b type bridge && ip link add name v type veth peer name w';
  const { status, stderr } = spawnSync('unshare', [...NETWORK, 'sh', '-c', script], { encoding: 'utf8' });
  return status === 0 ? undefined : `no bridge, or no cable to it: ${stderr.trim()}`;
}

const PYTHON_NEEDS = 'import hashlib, mmap, signal; hashlib.shake_256; signal.sigwait; mmap.mmap';

/** A python3 that can be part of the workload, or why there is none. */
export function findPython(): { path: string } | { path: undefined; reason: string } {
  const path = findProgram('python3');
  if (path === undefined) return { path: undefined, reason: 'there is no python3 here' };
  const { status } = spawnSync(path, ['-c', PYTHON_NEEDS], { stdio: 'ignore' });
  return status === 0
    ? { path }
    : { path: undefined, reason: `${path} lacks modules of the standard library` };
}
