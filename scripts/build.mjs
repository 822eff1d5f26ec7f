// Builds dist/ with TypeScript. Run by `prepare`, so `npm ci` is all a checkout needs.
// The incremental information is left out on purpose: dist is removed first, so that a
// deleted source never lives on as a stale module (or as a stale test).
import { spawnSync } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const tsc = `${root}node_modules/typescript/bin/tsc`;
if (!existsSync(tsc)) {
  console.error('stasis: TypeScript is not installed; run `npm ci` (with development dependencies) first');
  process.exit(1);
}
rmSync(`${root}dist`, { recursive: true, force: true });
const { status } = spawnSync(process.execPath, [tsc, '-p', root], { stdio: 'inherit', cwd: root });
if (status !== 0) process.exit(status ?? 1);

// Two programs are started for every checkpoint and restore. As one file each they start in half the time of some 250
// modules, and with V8's code for it (src/start/bundle.ts) in half of that. What tsc wrote gives way to a line that
// starts the bundle, so everybody's paths stay what they are in the sources.
const programs = ['dist/cli/criu/main', 'dist/library/worker'];
for (const program of programs) {
  await build({
    absWorkingDir: root,
    entryPoints: [`${program}.js`],
    outfile: `${program}.cjs`,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    target: 'node20',
    // Native code stays a package of its own.
    external: ['koffi'],
    define: { 'import.meta.url': '__stasis_url' },
    banner: { js: "const __stasis_url = require('node:url').pathToFileURL(__filename).href;" },
    logLevel: 'warning',
  });
  const up = '../'.repeat(program.split('/').length - 2);
  const name = program.split('/').at(-1);
  const start = `import { startBundle } from '${up}start/bundle.js';\nconst bundle = startBundle(new URL('./${name}.cjs', import.meta.url));\n`;
  writeFileSync(`${root}${program}.js`, `${start}export const main = bundle.main;\n`);
}
const { warm } = await import('./warm.mjs');
warm(root);
