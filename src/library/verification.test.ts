import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ImageError } from '../image/index.js';
import { Verification } from './verification.js';

/** Begins (its first word says so), and is gone. */
const DYING = `import { workerData } from 'node:worker_threads';
Atomics.store(new Int32Array(workerData.answer), 0, 1); process.exit();`;

const PROGRAMS: readonly (readonly [who: string, program: URL | undefined])[] = [
  ['its thread', undefined],
  ['who waits, where there is no thread', new URL('file:///nowhere/verifier.js')],
  [
    'who waits, where the thread has died at it',
    new URL(`data:text/javascript,${encodeURIComponent(DYING)}`),
  ],
];

for (const [who, program] of PROGRAMS)
  test(`what is wrong with an image is told by ${who}`, () => {
    const directory = mkdtempSync(join(tmpdir(), 'stasis-test-'));
    try {
      writeFileSync(join(directory, 'inventory.img'), 'no inventory', { mode: 0o600 });
      using verification = new Verification(
        directory,
        false,
        program,
        program === undefined ? undefined : 50,
      );
      assert.throws(() => verification.join(), ImageError);
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
