import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const INSIDE = 'STASIS_FAULTS_INSIDE';

/** The fault tests are alone in a pid namespace: whoever is there besides the tree is left over. */
export function isInside(): boolean {
  return process.env[INSIDE] !== undefined;
}

/**
 * Run a test file again in namespaces of its own. Their first process is a shell, which collects orphans: Node would
 * leave them as zombies.
 */
export function runInside(url: string): { readonly status: number | null; readonly output: string } {
  const namespaces = ['--pid', '--ipc', '--net', '--fork', '--kill-child', '--mount-proc'];
  const shell = [
    'bash',
    '-c',
    'ip link set lo up 2>/dev/null; "$@"; exit $?',
    'bash',
    process.execPath,
    fileURLToPath(url),
  ];
  const { NODE_TEST_CONTEXT: _, ...environment } = process.env;
  const isLong = process.env.STASIS_FAULTS === 'full';
  const result = spawnSync('unshare', [...namespaces, ...shell], {
    env: { ...environment, [INSIDE]: '1' },
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    stdio: ['ignore', isLong ? 'inherit' : 'pipe', isLong ? 'inherit' : 'pipe'],
  });
  return { status: result.status, output: `${result.stdout ?? ''}${result.stderr ?? ''}` };
}
