import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  createReadStream,
  createWriteStream,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import type { Socket } from 'node:net';
import { PassThrough, type Readable, type Writable } from 'node:stream';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { counted, counting, countsOn, Scratch, STASIS, stateOf, until } from '../cli/testing.js';
import {
  checkpoint,
  createEngine,
  ImageError,
  inspect,
  MoveError,
  pack,
  plan,
  restore,
  unpack,
} from '../index.js';
import { Subject } from '../testing/subject.js';

async function start(scratch: Scratch): Promise<{ subject: Subject; count: string; pid: number }> {
  const count = scratch.file('count');
  const subject = Subject.python(counting(count));
  await subject.expect(/ready/);
  return { subject, count, pid: subject.pid };
}

/** Another host, as far as pids go: the program restored there is ended with it. */
class OtherHost implements AsyncDisposable {
  readonly child: ChildProcess;
  complaint = '';

  constructor(script: string) {
    this.child = spawn(
      'unshare',
      ['--pid', '--fork', '--kill-child', '--mount-proc', 'bash', '-c', script, 'host', STASIS],
      {
        stdio: ['pipe', 'pipe', 'pipe'],
      },
    );
    this.child.stdin?.on('error', () => undefined);
    this.child.stderr?.on('data', (bytes: Buffer) => {
      this.complaint += bytes;
    });
  }

  get in(): Writable {
    return this.child.stdin as Writable;
  }

  get out(): Readable {
    return this.child.stdout as Readable;
  }

  /** unshare(1) kills the namespace's init when it dies, and with it everybody there. */
  async [Symbol.asyncDispose](): Promise<void> {
    const init = Number(childrenOf(this.child.pid));
    this.child.kill('SIGKILL');
    if (init > 0) await until('nobody is left there', () => stateOf(init) === undefined);
  }
}

/** Empty where there is no such process any more. */
function childrenOf(pid: number | undefined): string {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  } catch {
    return '';
  }
}

const RUN_THERE = '"$1" restore --detach - ; while :; do sleep 1; done';

test('an archive is saved, inspected, planned, unpacked and restored', async () => {
  using scratch = new Scratch();
  const { subject, count, pid } = await start(scratch);
  using _ = subject;
  await using engine = createEngine();
  const file = scratch.file('image.stasis');
  const saved = await checkpoint({ pid, to: file, engine });
  assert.equal(
    saved.image_bytes,
    Object.values(saved.files).reduce((sum, bytes) => sum + bytes, 0),
  );
  assert.deepEqual(
    readdirSync(scratch.path).filter((name) => name.startsWith('image')),
    ['image.stasis'],
  );
  const image = await inspect({ directory: file, engine, verify: true });
  assert.deepEqual(image.problems, []);
  assert.equal(image.checksums, true);
  assert.equal(image.processes[0]?.pid, pid);
  assert.ok((await plan({ directory: file, engine })).tapes.length > 0);
  const directory = scratch.file('directory');
  const unpacked = await unpack({ directory, file, engine });
  assert.equal(unpacked.bytes, saved.image_bytes);
  const again = scratch.file('again.stasis');
  assert.deepEqual(
    { ...(await pack({ directory, file: again, engine })), directory: '', file: '' },
    { ...unpacked, directory: '', file: '' },
  );
  await until('its pid is free', () => stateOf(pid) === undefined);
  for (const from of [file, again, directory]) {
    const before = counted(count);
    const restored = await restore({ from, engine });
    await until('it counts', () => counted(count) > before);
    subject.signal(15);
    assert.deepEqual(await restored.exit, { kind: 'exited', status: 7 });
  }
});

test('an archive whose pages were changed leaves no process', async () => {
  using scratch = new Scratch();
  const { subject, pid } = await start(scratch);
  using _ = subject;
  const file = scratch.file('image.stasis');
  await checkpoint({ pid, to: file });
  await until('its pid is free', () => stateOf(pid) === undefined);
  const bytes = readFileSync(file);
  const at = Math.floor(bytes.length / 2);
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(file, bytes);
  await assert.rejects(restore({ from: file, detach: true }), ImageError);
  assert.equal(stateOf(pid), undefined);
});

test('a stream goes from one engine to another, without holding the event loop', async () => {
  using scratch = new Scratch();
  const { subject, count, pid } = await start(scratch);
  using _ = subject;
  const stream = new PassThrough();
  let ticks = 0;
  const timer = setInterval(() => ticks++, 1);
  const there = restore({ from: stream, detach: true });
  const saved = await checkpoint({ pid, to: stream });
  const restored = await there;
  clearInterval(timer);
  assert.ok(ticks > 5, `${ticks} ticks`);
  assert.equal(restored.pid, pid);
  assert.equal(restored.pages, saved.private_pages + saved.shared_pages);
  await countsOn(count);
});

test('a stream that breaks off, or was changed, is refused as a whole', async () => {
  using scratch = new Scratch();
  const { subject, pid, count } = await start(scratch);
  using _ = subject;
  const file = scratch.file('stream');
  await checkpoint({ pid, to: createWriteStream(file), afterwards: 'run' });
  const good = readFileSync(file);
  const spoilt: readonly (readonly [Buffer, RegExp])[] = [
    [good.subarray(0, good.length - 100), /breaks off/],
    [good.subarray(0, 1000), /breaks off/],
    [Buffer.concat([good.subarray(0, 5000), Buffer.from('X'), good.subarray(5000)]), /damaged/],
    [Buffer.concat([good.subarray(0, 8), Buffer.from([9]), good.subarray(9)]), /has version 9/],
    [Buffer.from('no image at all'.repeat(10)), /no archive or stream/],
  ];
  for (const [bytes, message] of spoilt) {
    writeFileSync(file, bytes);
    await assert.rejects(
      restore({ from: createReadStream(file), detach: true }),
      (error) => error instanceof ImageError && error.offset !== undefined && message.test(error.message),
    );
  }
  await countsOn(count);
});

test('the source is killed when the tree runs at the other end', async () => {
  using scratch = new Scratch();
  const { subject, count, pid } = await start(scratch);
  using _ = subject;
  await using other = new OtherHost(RUN_THERE);
  await checkpoint({ pid, to: other.in, answers: other.out }).catch((error: unknown) => {
    throw new Error(`${error}\n${other.complaint}`);
  });
  await until('the source is gone', () => stateOf(pid) === undefined);
  await countsOn(count);
});

const refusals: readonly (readonly [name: string, script: string, message: RegExp])[] = [
  ['has no room for its pid', `echo 1; exec "$1" restore --detach --spool /nonexistent - </dev/null`, /./],
  ['ends without a word', 'head -c 1000 > /dev/null', /EPIPE|ECONNRESET|gone/],
  ['takes all and ends', 'cat > /dev/null', /./],
  ['answers nonsense', 'echo hello; cat > /dev/null', /said "hello"/],
];
for (const [name, script, message] of refusals)
  test(`the source goes on when the other end ${name}`, async () => {
    using scratch = new Scratch();
    const { subject, count, pid } = await start(scratch);
    using _ = subject;
    await using other = new OtherHost(script);
    await assert.rejects(checkpoint({ pid, to: other.in, answers: other.out, ...quick }), (error: Error) =>
      message.test(error.message),
    );
    await countsOn(count);
  });

const quick = { patience: { ready_ms: 2000 } };

test('a tree that could not be brought up is told of with the reason, and goes on', async () => {
  using scratch = new Scratch();
  const { subject, count, pid } = await start(scratch);
  using _ = subject;
  // Here its pid is taken by itself.
  const complaints = openSync(scratch.file('complaints'), 'w');
  const child = spawn(STASIS, ['restore', '--detach', '-'], { stdio: ['pipe', 'pipe', complaints] });
  closeSync(complaints);
  child.stdin?.on('error', () => undefined);
  if (child.stdin === null || child.stdout === null) assert.fail('it has no pipes');
  await assert.rejects(checkpoint({ pid, to: child.stdin, answers: child.stdout }), (error) => {
    assert.ok(error instanceof MoveError, `${error}; the other end: ${scratch.read('complaints')}`);
    return error.sourceState === 'running' && /is taken/.test(error.message);
  });
  await countsOn(count);
});

test('descriptors of the caller serve an engine that is there, and stay as they are', async () => {
  using scratch = new Scratch();
  const { subject, count, pid } = await start(scratch);
  using _ = subject;
  await using engine = createEngine();
  const [image, answers] = [scratch.file('to'), scratch.file('from')];
  execFileSync('mkfifo', [image, answers]);
  // Opened for both, so that nobody waits for the other.
  const to = { fd: openSync(image, 'r+'), answers: openSync(answers, 'r+') };
  await using _other = new OtherHost(`exec 0<${image} 1>${answers}; ${RUN_THERE}`);
  await checkpoint({ pid, to, engine });
  closeSync(to.fd);
  closeSync(to.answers);
  await until('the source is gone', () => stateOf(pid) === undefined);
  await countsOn(count);
});

function fdOf(stream: Readable | Writable): number {
  const { _handle: handle } = stream as unknown as Socket & { _handle: { fd: number } };
  return handle.fd;
}

test('a checkpoint that is called off while nobody takes its stream leaves the source running', async () => {
  using scratch = new Scratch();
  const { subject, count, pid } = await start(scratch);
  using _ = subject;
  await using other = new OtherHost('while :; do sleep 1; done');
  const controller = new AbortController();
  const call = checkpoint({
    pid,
    to: { fd: fdOf(other.in) },
    signal: controller.signal,
    onProgress: ({ phase }) => phase === 'memory' && controller.abort(),
  });
  await assert.rejects(call, { name: 'CancelledError' });
  await countsOn(count);
});

test('a tree that is to go on cannot wait for the other end', async () => {
  await assert.rejects(
    checkpoint({ pid: process.pid, to: new PassThrough(), answers: new PassThrough(), afterwards: 'run' }),
    /would make two of it/,
  );
  assert.ok(existsSync(fileURLToPath(import.meta.url)));
});
