// Makes V8's code caches of the bundled programs by one run of each: a process is saved, ended and brought back, in
// namespaces of its own. Without the rights for that (or on another system) there are no caches, and nothing is lost
// but a tenth of a second a command.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const TIMEOUT_MS = 60_000;
const NAMESPACES = ['--pid', '--fork', '--kill-child', '--mount-proc', '--net', '--ipc'];

/** Every program twice over: the second run finds the first one's code and adds its own. */
const SCRIPT = `
set -e
criu=$1/libexec/criu stasis=$1/bin/stasis
setsid sleep 1000 </dev/null >/dev/null 2>&1 &
pid=$!
while [ "$(cat /proc/$pid/comm)" != sleep ]; do sleep 0.01; done
"$criu" dump -t $pid -D "$2" -o dump.log
"$criu" restore -d -D "$2" -o restore.log
"$stasis" checkpoint --pid $pid -o "$2/image"
"$stasis" restore --detach "$2/image"
kill -9 $pid
`;

export function warm(root) {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return;
  const directory = mkdtempSync(join(tmpdir(), 'stasis-warm-'));
  try {
    spawnSync('unshare', [...NAMESPACES, 'bash', '-c', SCRIPT, 'warm', root.replace(/\/$/, ''), directory], {
      env: { ...process.env, NODE_OPTIONS: '', STASIS_MAKE_CODE_CACHE: '1' },
      stdio: process.env.STASIS_WARM_VERBOSE === undefined ? 'ignore' : 'inherit',
      timeout: TIMEOUT_MS,
    });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
