import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ImageError } from '../image/index.js';
import { Verification } from './verification.js';

const MISSING = new URL('file:///nowhere/verifier.js');

for (const program of [undefined, MISSING])
  test(`what is wrong with an image is told by ${program === undefined ? 'its thread' : 'who waits, where there is none'}`, () => {
    const directory = mkdtempSync(join(tmpdir(), 'stasis-test-'));
    try {
      writeFileSync(join(directory, 'inventory.img'), 'no inventory', { mode: 0o600 });
      using verification = new Verification(directory, false, program);
      assert.throws(() => verification.join(), ImageError);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
