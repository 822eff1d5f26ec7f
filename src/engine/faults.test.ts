import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { CAMPAIGNS, runCampaign } from '../testing/fault-campaigns.js';
import { isInside, runInside } from '../testing/fault-namespace.js';
import { DumpTrials } from '../testing/fault-trial.js';

/**
 * Never harm the source: whatever happens before the commit, the tree goes on as before, with nothing of ours in it;
 * after the commit it is dead, and nobody of it ran again; a restore leaves all or nothing.
 *
 * STASIS_FAULTS=full makes the long run, at every kernel call (or every STASIS_FAULT_STRIDE-th) and at 300 random
 * instants of each kind; STASIS_FAULT_ONLY is a pattern of the names of those to do.
 */
const isFull = process.env.STASIS_FAULTS === 'full';
const stride = isFull ? Number(process.env.STASIS_FAULT_STRIDE ?? 1) : undefined;
const only = new RegExp(process.env.STASIS_FAULT_ONLY ?? '');

function say(line: string): void {
  if (isFull) console.log(line);
}

if (process.env.STASIS_FAULTS === undefined)
  test(
    'faults',
    { skip: 'minutes long: npm run test:faults, or STASIS_FAULTS=full for every call' },
    () => undefined,
  );
else if (!isInside())
  test('faults, in namespaces of their own', () => {
    const { status, output } = runInside(import.meta.url);
    assert.equal(status, 0, output);
  });
else {
  for (const campaign of CAMPAIGNS)
    if (only.test(campaign.name))
      test(campaign.name, async () => {
        const { runs, done, harmed } = await runCampaign(campaign, stride, say);
        say(`| ${campaign.name} | ${runs} | ${done} | ${harmed.length} |`);
        assert.deepEqual(
          harmed.map(({ fault, phase, harm }) => ({ fault, phase, harm })),
          [],
        );
      });

  test('an exception in each phase', async () => {
    await using trials = new DumpTrials({ confinement: 'none', small: true });
    for (const phase of ['freeze', 'borrow', 'ask', 'files', 'memory', 'give back', 'write', 'commit']) {
      const { answer, done, harm } = await trials.run('kill', { kind: 'throw in phase', phase });
      assert.deepEqual({ phase, done, harm }, { phase, done: false, harm: [] });
      assert.match(answer?.error ?? '', /injected in phase/);
    }
  });

  test('a disk that is full', async () => {
    await using trials = new DumpTrials({ confinement: 'none', small: true });
    const mount = mkdtempSync(join(tmpdir(), 'stasis-full-'));
    try {
      for (const size of ['8k', '64k', '512k', '2m']) {
        execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'none', mount]);
        const image = join(mount, 'image');
        const { answer, done, harm } = await trials.run('kill', { kind: 'none' }, image);
        assert.deepEqual({ size, done, harm }, { size, done: false, harm: [] });
        assert.match(answer?.error ?? '', /ENOSPC/);
        assert.deepEqual(readdirSync(image), []);
        execFileSync('umount', [mount]);
      }
    } finally {
      rmSync(mount, { recursive: true, force: true });
    }
  });

  test('a directory that cannot be written', async () => {
    await using trials = new DumpTrials({ confinement: 'none', small: true });
    const mount = mkdtempSync(join(tmpdir(), 'stasis-readonly-'));
    execFileSync('mount', ['-t', 'tmpfs', 'none', mount]);
    try {
      const image = join(mount, 'image');
      mkdirSync(image);
      execFileSync('mount', ['-o', 'remount,ro', mount]);
      const { answer, done, harm } = await trials.run('kill', { kind: 'none' }, image);
      assert.deepEqual({ done, harm }, { done: false, harm: [] });
      assert.match(answer?.error ?? '', /EROFS/);
    } finally {
      execFileSync('umount', [mount]);
      rmSync(mount, { recursive: true, force: true });
    }
  });
}
