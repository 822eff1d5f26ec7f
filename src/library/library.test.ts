import assert from 'node:assert/strict';
import { closeSync, existsSync, openSync, readdirSync, writeFileSync, writeSync } from 'node:fs';
import { test } from 'node:test';
import { counted, counting, countsOn, parentOf, Scratch, stateOf, until } from '../cli/testing.js';
import {
  CancelledError,
  check,
  checkpoint,
  createEngine,
  EngineLostError,
  ImageError,
  inspect,
  plan,
  RestoreError,
  restore,
  SyscallError,
  UnsupportedError,
} from '../index.js';
import { Subject } from '../testing/subject.js';

async function start(scratch: Scratch, code = ''): Promise<{ subject: Subject; count: string; pid: number }> {
  const count = scratch.file('count');
  const subject = Subject.python(`${code}\n${counting(count)}`);
  await subject.expect(/ready/);
  return { subject, count, pid: subject.pid };
}

test('a round trip on one engine, without holding the event loop', async () => {
  using scratch = new Scratch();
  const { subject, count, pid } = await start(scratch);
  using _ = subject;
  await using engine = createEngine();
  const directory = scratch.file('image');

  let ticks = 0;
  const timer = setInterval(() => ticks++, 1);
  const phases: string[] = [];
  const saved = await checkpoint({
    pid,
    directory,
    engine,
    checksums: true,
    onProgress: ({ phase }) => phases.push(phase),
  });
  clearInterval(timer);
  // The engine is busy for tens of milliseconds; this loop is not.
  assert.ok(ticks >= 5, `${ticks} ticks`);
  assert.equal(saved.processes, 1);
  assert.deepEqual(
    phases,
    saved.phases.map(({ name }) => name),
  );
  assert.equal(
    saved.image_bytes,
    Object.values(saved.files).reduce((sum, bytes) => sum + bytes, 0),
  );

  const image = await inspect({ directory, engine, verify: true });
  assert.deepEqual(image.problems, []);
  assert.equal(image.checksums, true);
  assert.equal(image.processes[0]?.pid, pid);
  assert.equal(image.processes[0]?.memory?.image_bytes, saved.private_pages * 4096);
  assert.equal(image.pages_bytes, (saved.private_pages + saved.shared_pages) * 4096);

  const planned = await plan({ directory, engine });
  assert.match(planned.tapes.map(({ listing }) => listing).join('\n'), /clone3|mmap\(/);

  await until('its pid is free', () => stateOf(pid) === undefined);
  const before = counted(count);
  const restored = await restore({ directory, engine, verify: true });
  assert.equal(restored.pid, pid);
  assert.equal(parentOf(pid), engine.pid);
  await until('it counts', () => counted(count) > before);
  subject.signal(15);
  assert.deepEqual(await restored.exit, { kind: 'exited', status: 7 });

  const again = await restore({ directory, engine });
  subject.signal(9);
  assert.deepEqual(await again.exit, { kind: 'killed', signal: 9, core_dumped: false });
});

test('a detached tree outlives its engine', async () => {
  using scratch = new Scratch();
  const { subject, count, pid } = await start(scratch);
  using _ = subject;
  const directory = scratch.file('image');
  await checkpoint({ pid, directory });
  await until('its pid is free', () => stateOf(pid) === undefined);
  const restored = await restore({ directory, detach: true });
  assert.equal(restored.exit, undefined);
  assert.equal(parentOf(pid), 1);
  await countsOn(count);
});

for (const phase of ['look', 'freeze', 'ask', 'memory', 'write', 'commit'])
  test(`a checkpoint that is called off in phase ${phase} leaves nothing but the running source`, async () => {
    using scratch = new Scratch();
    const { subject, count, pid } = await start(scratch);
    using _ = subject;
    const directory = scratch.file('image');
    const controller = new AbortController();
    // Told right at the begin of the phase, the engine hears of it at that of a later one, or is done by then.
    const call = checkpoint({
      pid,
      directory,
      afterwards: 'run',
      signal: controller.signal,
      onProgress: (progress) => progress.phase === phase && controller.abort('enough'),
    });
    const outcome = await call.then(
      () => 'done',
      (error: unknown) => error,
    );
    if (outcome !== 'done') {
      assert.ok(outcome instanceof CancelledError, String(outcome));
      assert.equal(outcome.cause, 'enough');
      assert.deepEqual(existsSync(directory) ? readdirSync(directory) : [], []);
    }
    await countsOn(count);
  });

test('a restore that is called off leaves no process', async () => {
  using scratch = new Scratch();
  const { subject, pid } = await start(scratch);
  using _ = subject;
  const directory = scratch.file('image');
  await checkpoint({ pid, directory });
  await until('its pid is free', () => stateOf(pid) === undefined);
  const controller = new AbortController();
  const call = restore({
    directory,
    signal: controller.signal,
    onProgress: ({ phase }) => phase === 'holder' && controller.abort(),
  });
  await assert.rejects(call, CancelledError);
  assert.equal(stateOf(pid), undefined);
  await assert.rejects(restore({ directory, signal: AbortSignal.abort() }), CancelledError);
});

test('errors are of their classes', async () => {
  using scratch = new Scratch();
  await using engine = createEngine();
  const directory = scratch.file('image');
  await assert.rejects(
    checkpoint({ pid: 4_000_000, directory, engine }),
    (error) => error instanceof SyscallError && error.code === 'ESRCH',
  );
  await assert.rejects(
    inspect({ directory: '/nonexistent', engine }),
    (error) => error instanceof ImageError && error.file === '/nonexistent',
  );
  await assert.rejects(
    checkpoint({ pid: process.pid, directory, engine }),
    (error) => error instanceof UnsupportedError && error.items.length > 0,
  );
  await assert.rejects(checkpoint({ pid: -1, directory, engine }), { name: 'ZodError' });
  assert.ok(!existsSync(scratch.file('image/inventory.img')));

  const { subject, pid } = await start(scratch);
  using _ = subject;
  await checkpoint({ pid, directory, engine, afterwards: 'run' });
  await assert.rejects(
    restore({ directory, engine }),
    (error) =>
      error instanceof RestoreError && error.code === 'EEXIST' && /pid \d+ is taken/.test(error.message),
  );
  await assert.rejects(
    checkpoint({ pid, directory, engine }),
    (error) => error instanceof ImageError && /already holds an image/.test(error.message),
  );
  writeFileSync(scratch.file('image/core-1.img'), 'nonsense');
  await assert.rejects(restore({ directory, engine }), ImageError);
});

test('the end of an engine is told, and harms no source', async () => {
  using scratch = new Scratch();
  const { subject, count, pid } = await start(scratch);
  using _ = subject;
  const engine = createEngine();
  const call = checkpoint({
    pid,
    directory: scratch.file('image'),
    engine,
    afterwards: 'run',
    onProgress: ({ phase }) => phase === 'ask' && process.kill(engine.pid ?? 0, 'SIGKILL'),
  });
  await assert.rejects(call, (error) => error instanceof EngineLostError && /SIGKILL/.test(error.message));
  await countsOn(count);
  await assert.rejects(check({ engine }), EngineLostError);
  await engine.close();
});

test('an engine that is dropped calls off what it does', async () => {
  using scratch = new Scratch();
  const { subject, count, pid } = await start(scratch);
  using _ = subject;
  const directory = scratch.file('image');
  const engine = createEngine();
  const call = checkpoint({
    pid,
    directory,
    engine,
    onProgress: ({ phase }) => phase === 'look' && engine[Symbol.dispose](),
  });
  await assert.rejects(call, EngineLostError);
  await countsOn(count);
  await until('nothing is left', () => !existsSync(directory) || readdirSync(directory).length === 0);
});

test('check looks at the host, and at a tree', async () => {
  using scratch = new Scratch();
  await using engine = createEngine();
  const host = await check({ engine });
  assert.equal(host.refusals, null);
  assert.ok(host.ok, JSON.stringify(host.host.filter(({ required, state }) => required && state !== 'ok')));
  const { subject, pid } = await start(scratch);
  using _ = subject;
  assert.deepEqual((await check({ pid, engine })).refusals, []);
  // A child without the leader of its session.
  using family = Subject.python(
    'import os, time\nchild = os.fork()\nif child: print(f"child {child}", flush=True)\ntime.sleep(1000)\n',
  );
  const [, child] = await family.expect(/child (\d+)/);
  const { ok, refusals } = await check({ pid: Number(child), engine });
  assert.equal(ok, false);
  assert.match(refusals?.[0]?.object ?? '', /^session/);
  assert.match(refusals?.[0]?.help ?? '', /--shell-job/);
  assert.equal((await check({ pid: Number(child), engine, shell_job: true })).ok, true);
});

test('a page that was changed is found while it is loaded, and no process is left', async () => {
  using scratch = new Scratch();
  const { subject, pid } = await start(scratch);
  using _ = subject;
  const directory = scratch.file('image');
  await checkpoint({ pid, directory });
  const pages = openSync(scratch.file('image/pages-1.img'), 'r+');
  writeSync(pages, Buffer.from('X'), 0, 1, 5000);
  closeSync(pages);
  await assert.rejects(restore({ directory, detach: true }), (error: unknown) => {
    assert.ok(error instanceof ImageError);
    assert.match(error.message, /pages-1\.img/);
    return true;
  });
  assert.ok(!subject.isAlive);
});
