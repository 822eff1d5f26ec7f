import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { dump } from '../engine/dump.js';
import { restore } from '../engine/restore.js';
import { describe, ImageReader, verifyImage } from '../image/index.js';
import { readTree } from '../kernel/procfs/tree.js';
import { attempt } from '../kernel/syscall.js';
import { CHECKPOINT, RESTORE } from '../testing/options.js';
import { peerDump, peerRestore, SKIP_PEER } from '../testing/peer.js';
import { assertWorks, PROGRAMS, type Program } from '../testing/programs.js';
import type { Subject } from '../testing/subject.js';

/**
 * Images are exchanged with a peer (STASIS_PEER=/path/to/criu): what one engine saves the other brings back, and the
 * program goes on with its self-check.
 */

interface Engine {
  readonly name: string;
  readonly dump: (pid: number, directory: string) => void;
  readonly restore: (directory: string) => void;
}

const OURS: Engine = {
  name: 'stasis',
  dump: (pid, directory) => {
    dump({ ...CHECKPOINT, pid, directory });
  },
  restore: (directory) => {
    restore({ ...RESTORE, directory });
  },
};
const PEER: Engine = { name: 'criu', dump: peerDump, restore: peerRestore };

function assertSound(directory: string): void {
  using reader = ImageReader.open(directory);
  assert.deepEqual(verifyImage(reader), []);
  assert.ok(describe(directory).tasks > 0);
}

const WNOHANG = 1;

/** A root that this process restored is its child, and stays a zombie until it is waited for. */
function gone(pids: readonly number[]): boolean {
  for (const pid of pids) attempt('wait4', [pid, 0, WNOHANG, 0]);
  return pids.every((pid) => attempt('kill', [pid, 0]) < 0);
}

async function untilGone(pids: readonly number[]): Promise<void> {
  for (const deadline = Date.now() + 20_000; !gone(pids); ) {
    if (Date.now() > deadline) throw new Error(`some of pids ${pids.join(', ')} are still there`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function move(subject: Subject, [from, to]: readonly [Engine, Engine], round: number): Promise<void> {
  const directory = join(subject.directory, `image-${round}`);
  mkdirSync(directory, { mode: 0o700 });
  const pids = readTree(subject.pid).map(({ pid }) => pid);
  from.dump(subject.pid, directory);
  await untilGone(pids);
  assertSound(directory);
  to.restore(directory);
}

async function exchange(program: Program): Promise<void> {
  using subject = program.start();
  const pass = async (engines: readonly [Engine, Engine], round: number): Promise<void> => {
    await move(subject, engines, round);
    await assertWorks(subject, program);
  };
  try {
    await assertWorks(subject, program);
    await pass([OURS, PEER], 1);
    // What the peer rebuilt is saved by us again, so that nothing it cannot know is lost on the way.
    await pass([OURS, OURS], 2);
    await pass([PEER, OURS], 3);
    await pass([PEER, PEER], 4);
  } finally {
    for (const { pid } of readTree(subject.pid)) attempt('kill', [pid, 9]);
  }
}

for (const program of PROGRAMS) test(program.name, { skip: SKIP_PEER }, () => exchange(program));
