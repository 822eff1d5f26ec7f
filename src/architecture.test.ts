import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

/** The sources, found from dist or src. */
const SOURCE = resolve(dirname(fileURLToPath(import.meta.url)).replace(/\/dist\b/, '/src'));

/** A layer may import itself and those named; tests may import anything. */
const ALLOWED: Record<string, readonly string[]> = {
  start: [],
  machine: [],
  abi: [],
  image: ['abi'],
  kernel: ['abi', 'machine'],
  tape: ['abi', 'machine', 'kernel'],
  resources: ['abi', 'kernel', 'tape', 'image'],
  engine: ['abi', 'machine', 'kernel', 'tape', 'image', 'resources'],
  library: ['abi', 'kernel', 'tape', 'image', 'engine', 'resources'],
  cli: ['abi', 'kernel', 'tape', 'image', 'engine', 'library'],
  bench: ['abi', 'kernel', 'image', 'library', 'engine'],
  demo: ['library', 'image'],
};

function sources(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) return sources(path);
    return path.endsWith('.ts') ? [path] : [];
  });
}

function imports(file: string): string[] {
  const text = readFileSync(file, 'utf8');
  return [...text.matchAll(/(?:from|import) '(\.[^']+)'/g)].map((match) =>
    resolve(dirname(file), match[1] ?? ''),
  );
}

const files = sources(SOURCE).filter((file) => !file.endsWith('.test.ts') && !file.includes('/testing'));

test('layers import only downwards', () => {
  const wrong: string[] = [];
  for (const file of files) {
    const [layer = ''] = relative(SOURCE, file).split('/');
    if (!(layer in ALLOWED)) continue;
    for (const target of imports(file)) {
      const [other = ''] = relative(SOURCE, target).split('/');
      if (other !== layer && !ALLOWED[layer]?.includes(other))
        wrong.push(`${relative(SOURCE, file)} imports ${relative(SOURCE, target)}`);
    }
  }
  assert.deepEqual(wrong, []);
});

test('resources never import a sibling family, and the engine knows kinds only through the registry', () => {
  const wrong: string[] = [];
  for (const file of files) {
    const parts = relative(SOURCE, file).split('/');
    if (parts[0] !== 'resources' || parts.length < 3) continue;
    for (const target of imports(file)) {
      const other = relative(SOURCE, target).split('/');
      // What every kind of open file needs is nobody's sibling.
      if (other[1] === 'description') continue;
      if (other[0] === 'resources' && other.length > 2 && other[1] !== parts[1])
        wrong.push(`${relative(SOURCE, file)} imports ${relative(SOURCE, target)}`);
    }
  }
  assert.deepEqual(wrong, []);
});

test('one file imports the FFI', () => {
  const importers = files.filter((file) => /from 'koffi'/.test(readFileSync(file, 'utf8')));
  assert.deepEqual(
    importers.map((file) => relative(SOURCE, file)),
    ['kernel/ffi.ts'],
  );
});

test('files stay under 400 lines', () => {
  const long = files.filter(
    (file) => !file.includes('generated') && readFileSync(file, 'utf8').split('\n').length > 401,
  );
  assert.deepEqual(
    long.map((file) => relative(SOURCE, file)),
    [],
  );
});
