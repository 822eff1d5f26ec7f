import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileKinds, memory, taskStates } from './registry.js';
import { supportPage } from './support.js';

test('docs/support.md says what the registry says', () => {
  const page = readFileSync(new URL('../../docs/support.md', import.meta.url), 'utf8');
  assert.equal(page, supportPage(), 'write it anew: npm run build && node scripts/support.mjs');
});

test('every kind has a name of its own and a word on what is kept', () => {
  for (const kinds of [fileKinds, taskStates, memory.kinds]) {
    const names = kinds.map(({ name }) => name);
    assert.equal(new Set(names).size, names.length, `names twice: ${names}`);
    for (const { name, support } of kinds) assert.ok(name !== '' && support !== '', name);
  }
});
