import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { Subject } from '../testing/subject.js';
import { counting, countsOn, runCommand, Scratch, STASIS, stateOf, until } from './testing.js';

const stasis = (...args: string[]) => runCommand(STASIS, args);
const TIMEOUT_MS = 60_000;

function shell(script: string, env: Record<string, string>) {
  return spawnSync('bash', ['-c', script], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: TIMEOUT_MS,
    env: { ...process.env, STASIS, ...env },
  });
}

async function start(scratch: Scratch): Promise<{ subject: Subject; count: string; pid: number }> {
  const count = scratch.file('count');
  const subject = Subject.python(counting(count));
  await subject.expect(/ready/);
  return { subject, count, pid: subject.pid };
}

test('one file: saved, inspected, planned, unpacked, packed, restored', async () => {
  using scratch = new Scratch();
  const { subject, count, pid } = await start(scratch);
  using _ = subject;
  const file = scratch.file('image.stasis');
  const saved = stasis('checkpoint', '--pid', `${pid}`, '-o', file);
  assert.equal(saved.status, 0, saved.stderr);
  assert.match(stasis('inspect', '--verify', file).stdout, /^Sound: .*all checksums match$/m);
  assert.match(stasis('plan', file).stdout, /clone3|mmap/);
  const [directory, again] = [scratch.file('directory'), scratch.file('again.stasis')];
  assert.equal(stasis('image', 'unpack', file, directory).status, 0);
  assert.ok(readdirSync(directory).includes('inventory.img'));
  assert.equal(stasis('image', 'pack', directory, again).status, 0);
  assert.equal(stasis('image', 'pack', directory, again).status, 4);
  await until('its pid is free', () => stateOf(pid) === undefined);
  const cut = scratch.file('cut.stasis');
  writeFileSync(cut, readFileSync(file).subarray(0, statSync(file).size - 1), { mode: 0o600 });
  const refused = stasis('restore', '--detach', cut);
  assert.equal(refused.status, 4);
  assert.match(refused.stderr, /breaks off/);
  const restored = stasis('restore', '--detach', again);
  assert.equal(restored.status, 0, restored.stderr);
  await countsOn(count);
});

test('a pipe from a checkpoint to a restore', async () => {
  using scratch = new Scratch();
  const { subject, count, pid } = await start(scratch);
  using _ = subject;
  const script = 'set -o pipefail; "$STASIS" checkpoint --pid $PID -o - | "$STASIS" restore --detach -';
  const { status, stderr } = shell(script, { PID: String(pid) });
  assert.equal(status, 0, stderr);
  assert.match(stderr, /Sent pid \d+: 1 process.* it was killed/);
  await countsOn(count);
});

test('a checkpoint through a command kills when the tree runs there', async () => {
  using scratch = new Scratch();
  const { subject, count, pid } = await start(scratch);
  using _ = subject;
  const there = `unshare --pid --fork --kill-child --mount-proc bash -c '"$STASIS" restore --detach --pidfile ${scratch.file('pid')} - && for i in 1 2 3 4 5; do sleep 1; done'`;
  const { status, stderr } = shell('exec "$STASIS" checkpoint --pid $PID --through "$THERE"', {
    PID: String(pid),
    THERE: there,
  });
  assert.equal(status, 0, stderr);
  assert.match(stderr, /it runs at the other end, and was killed here/);
  await until('the source is gone', () => stateOf(pid) === undefined);
  assert.equal(Number(readFileSync(scratch.file('pid'), 'utf8')), pid);
  assert.ok(statSync(count).size > 0);
});

test('a checkpoint through a command that fails leaves the tree running', async () => {
  using scratch = new Scratch();
  const { subject, count, pid } = await start(scratch);
  using _ = subject;
  // Its pid is taken here.
  const failed = stasis('checkpoint', '--pid', `${pid}`, '--through', `${STASIS} restore --detach -`);
  assert.equal(failed.status, 1, failed.stderr);
  assert.match(failed.stderr, /the other end could not bring the tree up: pid \d+ is taken/);
  await countsOn(count);
});

test('mistakes of usage have status 2', () => {
  for (const args of [
    ['checkpoint', '--pid', '1'],
    ['checkpoint', '--pid', '1', '-o', 'x', '--wait-ready'],
    ['checkpoint', '--pid', '1', '-o', '-', '--wait-ready', '--leave-running'],
    ['checkpoint', '--pid', '1', '-o', 'x', '--through', 'cat'],
    ['image'],
    ['image', 'pack', 'x'],
    ['unlock'],
    ['unlock', 'x', '--kill'],
    ['unlock', '--pid', '1', '--kill', '--resume'],
  ])
    assert.equal(stasis(...args).status, 2, args.join(' '));
});
