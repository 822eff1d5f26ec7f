import { chmodSync, cpSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** Images made by CRIU 4.2. `rich` and `namespaces` are without the contents of processes' pages, to be small. */
export const CRIU_IMAGES = ['tiny', 'ipc', 'rich', 'namespaces'] as const;
/** Those that are whole. */
export const WHOLE_IMAGES = ['tiny', 'ipc'] as const;

/** The repository's root: test data is not copied to where the tests are compiled to. */
function repositoryRoot(): string {
  let directory = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(directory, 'package.json'))) {
    const parent = path.dirname(directory);
    if (parent === directory) throw new Error('the repository with the test data is not above the tests');
    directory = parent;
  }
  return directory;
}

export function criuImage(name: (typeof CRIU_IMAGES)[number]): string {
  return path.join(repositoryRoot(), 'src/image/testdata/criu-4.2', name);
}

/** A directory that is removed at the end of the scope. */
export class TemporaryDirectory implements Disposable {
  readonly path = mkdtempSync(path.join(tmpdir(), 'stasis-image-'));

  /** A copy of an image made by CRIU, with the modes a reader trusts. */
  copy(name: (typeof CRIU_IMAGES)[number]): string {
    const target = path.join(this.path, name);
    cpSync(criuImage(name), target, { recursive: true });
    chmodSync(target, 0o700);
    for (const file of readdirSync(target)) chmodSync(path.join(target, file), 0o600);
    return target;
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}
