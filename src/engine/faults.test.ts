import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { CAMPAIGNS, explainHarm, runCampaign, TrialSets } from '../testing/fault-campaigns.js';
import { isInside, runInside } from '../testing/fault-namespace.js';
import { selectionOf } from '../testing/fault-places.js';
import { DumpTrials } from '../testing/fault-trial.js';

/**
 * Never harm the source: whatever happens before the commit, the tree goes on as before, with nothing of ours in it;
 * after the commit it is dead, and nobody of it ran again; a restore leaves all or nothing.
 *
 * The short run is a sample. STASIS_FAULTS=full makes the long one, at every kernel call and at 300 random instants of each
 * kind; testing/fault-places.ts says how to make a part of it.
 */
const isFull = process.env.STASIS_FAULTS === 'full';
const selection = isFull ? selectionOf(process.env) : undefined;

/** For tests of the short run. */
const SHORT = { skip: isFull };

function say(line: string): void {
  if (isFull) console.log(line);
}

if (!isInside())
  test('faults, in namespaces of their own', () => {
    const { status, output } = runInside(import.meta.url);
    assert.equal(status, 0, output);
  });
else {
  const sets = new TrialSets();
  after(() => sets[Symbol.asyncDispose]());

  for (const campaign of CAMPAIGNS)
    if (selection === undefined || selection.only.test(campaign.name))
      test(campaign.name, async () => {
        const start = Date.now();
        const { harmed, ...counts } = await runCampaign(sets, campaign, selection, say);
        const { runs, done, missed, known, calls } = counts;
        const time = `${((Date.now() - start) / runs).toFixed(0)} ms each`;
        say(
          `| ${campaign.name} | ${runs} runs, ${known} in all, of ${calls} calls | ${done} done | ${missed} missed | ${harmed.length} harmed | ${time} |`,
        );
        assert.equal(harmed.length, 0, harmed.map((trial) => explainHarm(campaign, trial)).join('\n'));
      });

  test('an exception in each phase', SHORT, async () => {
    await sets.end();
    await using trials = new DumpTrials({ confinement: 'none', small: true });
    for (const phase of ['freeze', 'borrow', 'ask', 'files', 'memory', 'give back', 'write', 'commit']) {
      const { answer, done, harm } = await trials.run('kill', { kind: 'throw in phase', phase });
      assert.deepEqual({ phase, done, harm }, { phase, done: false, harm: [] });
      assert.match(answer?.error ?? '', /injected in phase/);
    }
  });

  test('a process under filters that refuse a copy its end', SHORT, async () => {
    await sets.end();
    await using trials = new DumpTrials({ confinement: 'mild', small: true });
    const { answer } = await trials.run('run', { kind: 'none' });
    const startOf = (phase: string): number =>
      Number(answer?.phases.find((text) => text.startsWith(`${phase} `))?.slice(phase.length));
    // Copies are made at the end of this phase.
    const calls = startOf('files') - startOf('ask');
    for (let at = calls - 48; at < calls; at += 4) {
      const fault = { kind: 'kill', victim: 'controller', phase: 'ask', at, signal: 9 } as const;
      const { harm } = await trials.run('run', fault);
      assert.deepEqual({ at, harm }, { at, harm: [] });
    }
  });

  test('a disk that is full', SHORT, async () => {
    using mount = new Mounted(DISK);
    await using trials = new DumpTrials({ confinement: 'none', small: true });
    const image = join(mount.path, 'image');
    const filler = join(mount.path, 'filler');
    for (const room of [8 << 10, 64 << 10, 512 << 10, 2 << 20, 6 << 20]) {
      writeFileSync(filler, Buffer.alloc(DISK - room - OVERHEAD));
      const { answer, done, harm } = await trials.run('kill', { kind: 'none' }, image);
      assert.deepEqual({ room, done, harm }, { room, done: false, harm: [] });
      assert.match(answer?.error ?? '', /ENOSPC/);
      assert.deepEqual(readdirSync(image), []);
    }
  });

  test('a directory that cannot be written', SHORT, async () => {
    using mount = new Mounted(DISK);
    const image = join(mount.path, 'image');
    mkdirSync(image);
    execFileSync('mount', ['-o', 'remount,ro', mount.path]);
    await using trials = new DumpTrials({ confinement: 'none', small: true });
    const { answer, done, harm } = await trials.run('kill', { kind: 'none' }, image);
    assert.deepEqual({ done, harm }, { done: false, harm: [] });
    assert.match(answer?.error ?? '', /EROFS/);
  });
}

/** A tmpfs of so many bytes, in this test's own mount namespace. */
class Mounted implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), 'stasis-mounted-'));

  constructor(size: number) {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'none', this.path]);
  }

  [Symbol.dispose](): void {
    execFileSync('umount', ['-l', this.path]);
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Less than an image of the small tree takes. */
const DISK = 8 << 20;
/** What the directory takes. */
const OVERHEAD = 8 << 10;
