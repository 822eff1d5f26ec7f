// Generates src/image/schema/generated/ from the .proto files beside it. The result is committed, so that a
// build needs no compiler; run this after a change to a schema.
import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const bin = `${root}node_modules/.bin`;
rmSync(`${root}src/image/schema/generated`, { recursive: true, force: true });
execFileSync(`${bin}/buf`, ['generate', '--template', 'src/image/schema/buf.gen.yaml', 'src/image/schema'], {
  cwd: root,
  stdio: 'inherit',
  env: { ...process.env, PATH: `${bin}:${process.env.PATH ?? ''}` },
});
