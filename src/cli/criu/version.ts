import { readFileSync } from 'node:fs';

/** The version of CRIU whose interfaces these are; callers compare it. */
export const CRIU_VERSION = '4.2';

/** Ours, of package.json. */
export function stasisVersion(): string {
  const manifest: unknown = JSON.parse(
    readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'),
  );
  if (typeof manifest === 'object' && manifest !== null && 'version' in manifest)
    return String(manifest.version);
  throw new Error('package.json has no version');
}
