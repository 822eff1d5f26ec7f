// Builds dist/ with TypeScript. Run by `prepare`, so `npm ci` is all a checkout needs.
// The incremental information is left out on purpose: dist is removed first, so that a
// deleted source never lives on as a stale module (or as a stale test).
import { spawnSync } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const tsc = `${root}node_modules/typescript/bin/tsc`;
if (!existsSync(tsc)) {
  console.error('stasis: TypeScript is not installed; run `npm ci` (with development dependencies) first');
  process.exit(1);
}
rmSync(`${root}dist`, { recursive: true, force: true });
const { status } = spawnSync(process.execPath, [tsc, '-p', root], { stdio: 'inherit', cwd: root });
process.exit(status ?? 1);
