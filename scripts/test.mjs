// Runs the tests of dist/ that a name on the command line is part of, or all of them: `npm test -- getopt restore`.
//
// Tests freeze, trace and kill processes, so they run in namespaces of their own: what they leave ends with them, and
// no pid they choose is anybody else's. The first process there is a shell, which collects orphans.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
// Every kernel call of every fault campaign takes hours.
const FULL_MS = process.env.STASIS_FAULTS === 'full' ? 86_400_000 : 400_000;
const TIMEOUT_MS = Number(process.env.STASIS_TEST_TIMEOUT_MS ?? FULL_MS);
const CONCURRENCY = Number(process.env.STASIS_TEST_CONCURRENCY ?? 2);
const NAMESPACES = ['--pid', '--fork', '--kill-child', '--mount-proc', '--net', '--ipc'];

const missing = whatIsMissing();
if (missing.length > 0) {
  for (const line of missing) console.error(`stasis: cannot test: ${line}`);
  process.exit(1);
}

const filters = process.argv.slice(2);
const files = testFiles(join(root, 'dist'))
  .map((file) => relative(root, file))
  .filter((file) => filters.length === 0 || filters.some((filter) => file.includes(filter)))
  .sort();
if (files.length === 0) {
  console.error(`stasis: no test is named like ${filters.join(', ')}`);
  process.exit(1);
}

const node = [
  process.execPath,
  '--test',
  `--test-concurrency=${CONCURRENCY}`,
  `--test-timeout=${TIMEOUT_MS}`,
  '--test-reporter=spec',
  ...files,
];
// Trees under test inherit no descriptor of whoever runs the tests, and the numbers of their terminals are nobody else's.
// Their pids are beyond those that another namespace, which stands for another host, uses first; and are given out once.
const script =
  'echo 2000 >/proc/sys/kernel/ns_last_pid; for fd in $(ls /proc/self/fd); do [ "$fd" -gt 2 ] && eval "exec $fd>&-"; done 2>/dev/null; ip link set lo up 2>/dev/null; mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts /dev/pts; "$@"; exit $?';
console.log(`stasis: ${files.length} test files in namespaces of their own`);
const child = spawn('unshare', [...NAMESPACES, 'bash', '-c', script, 'tests', ...node], {
  cwd: root,
  stdio: ['ignore', 'inherit', 'inherit'],
  env: { ...process.env, NODE_OPTIONS: '' },
});
// unshare(1) takes no notice of the others; its child goes with it.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill('SIGKILL'));
child.on('exit', (status, signal) => process.exit(signal === null ? status : 1));

function testFiles(directory) {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const file = join(directory, entry.name);
    if (entry.isDirectory()) return testFiles(file);
    return entry.name.endsWith('.test.js') ? [file] : [];
  });
}

/** All that is missing at once, each with what would help. */
function whatIsMissing() {
  const lines = [];
  if (!existsSync(join(root, 'dist'))) lines.push('nothing is built; run "npm ci"');
  if (process.getuid?.() !== 0) lines.push('tests trace processes and make namespaces; run them as root');
  for (const program of ['unshare', 'bash', '/usr/bin/python3']) {
    if (spawnSync('sh', ['-c', `command -v ${program}`]).status !== 0)
      lines.push(`${program} is not installed (apt-get install util-linux bash python3)`);
  }
  if (lines.length === 0 && spawnSync('unshare', [...NAMESPACES, 'true']).status !== 0)
    lines.push(`"unshare ${NAMESPACES.join(' ')} true" fails; in a container, it has to be a privileged one`);
  const scope = readIfThere('/proc/sys/kernel/yama/ptrace_scope');
  if (scope?.trim() === '3') lines.push('kernel.yama.ptrace_scope is 3: nobody may trace');
  return lines;
}

function readIfThere(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}
