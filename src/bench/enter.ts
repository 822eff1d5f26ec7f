import { spawnSync } from 'node:child_process';

/**
 * Run `script` again in namespaces of its own, `variable` in its environment saying so; answers its exit status. A plain
 * shell is the pid namespace's init: it collects orphans.
 */
export function enter(
  namespaces: readonly string[],
  variable: string,
  script: string,
  args: readonly string[],
): number {
  const init = ['sh', '-c', '"$@"; exit $?', 'sh', process.execPath, script, ...args];
  const { status, signal, error } = spawnSync(
    'unshare',
    ['--pid', ...namespaces, '--fork', '--kill-child', '--mount-proc', ...init],
    { stdio: 'inherit', env: { ...process.env, [variable]: '1' } },
  );
  if (error !== undefined) throw error;
  if (status !== 0) process.stderr.write(`the bench ended with ${signal ?? `status ${status}`}\n`);
  return status ?? 1;
}
