import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { ImageReader } from '../../image/index.js';
import { attempt } from '../../kernel/syscall.js';
import { StemHolder } from '../../resources/description/index.js';
import { isInside, runInside } from '../../resources/process/testing.js';
import { CHECKPOINT, RESTORE } from '../../testing/options.js';
import { assertWorks, PROGRAMS } from '../../testing/programs.js';
import { dump } from '../dump.js';
import { restore } from '../restore.js';
import { planRestore } from './plan.js';

/** How many images are planned, and how many are restored; the long run sets STASIS_MUTATIONS. */
const MUTATIONS = Number(process.env.STASIS_MUTATIONS ?? 200);
const RESTORES = 30;
/** Far more than a plan of these images takes, even on a busy machine. */
const PLAN_MS = 10_000;

interface Mutation {
  readonly file: number;
  readonly kind: 'set' | 'cut' | 'repeat' | 'drop' | 'empty' | 'word';
  /** Where, as a fraction of the file. */
  readonly at: number;
  readonly value: number;
}

const mutation: fc.Arbitrary<Mutation> = fc.record({
  file: fc.noBias(fc.nat(9999)),
  kind: fc.constantFrom('set', 'set', 'set', 'set', 'cut', 'repeat', 'drop', 'empty', 'word'),
  at: fc.noBias(fc.nat(999_999)).map((part) => part / 1_000_000),
  value: fc.noBias(fc.nat(0xffff_ffff)),
});

function mutate(bytes: Buffer, { kind, at, value }: Mutation): Buffer {
  const from = Math.floor(at * bytes.length);
  const length = (value % 16) + 1;
  switch (kind) {
    case 'set': {
      const changed = Buffer.from(bytes);
      if (changed.length > 0) changed[from] = value & 0xff;
      return changed;
    }
    case 'word': {
      const changed = Buffer.from(bytes);
      if (from + 4 <= changed.length) changed.writeUInt32LE(value, from);
      return changed;
    }
    case 'cut':
      return bytes.subarray(0, from);
    case 'repeat':
      return Buffer.concat([
        bytes.subarray(0, from),
        bytes.subarray(Math.max(0, from - length), from),
        bytes.subarray(from),
      ]);
    case 'drop':
      return Buffer.concat([bytes.subarray(0, from), bytes.subarray(from + length)]);
    case 'empty':
      return Buffer.alloc(0);
    default:
      return kind satisfies never;
  }
}

/** A copy of an image whose mutated file is the only one that is not the original's. */
function changed(original: string, directory: string, change: Mutation): string {
  rmSync(directory, { recursive: true, force: true });
  cpSync(original, directory, { recursive: true });
  const names = readdirSync(directory)
    .filter((name) => name.endsWith('.img'))
    .sort();
  const name = names[change.file % names.length] ?? '';
  const path = join(directory, name);
  writeFileSync(path, mutate(readFileSync(path), change), { mode: 0o600 });
  return name;
}

/** Errors of the world and of the image, as opposed to those of a program that stumbles over its input. */
const BUGS = new Set(['TypeError', 'RangeError', 'ReferenceError', 'SyntaxError', 'AssertionError', 'Error']);

function refusalOf(act: () => void): string | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    assert.ok(error instanceof Error);
    assert.ok(!BUGS.has(error.name), `${error.name}: ${error.stack}`);
    assert.notEqual(error.message, '');
    return `${error.name}: ${error.message}`;
  }
}

async function withImage(index: number, use: (image: string, scratch: string) => void): Promise<void> {
  const program = PROGRAMS[index];
  assert.ok(program);
  using subject = program.start();
  const scratch = mkdtempSync(join(tmpdir(), 'stasis-hostile-'));
  try {
    await assertWorks(subject, program);
    const image = join(scratch, 'image');
    dump({ ...CHECKPOINT, pid: subject.pid, directory: image });
    use(image, join(scratch, 'changed'));
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function planOnce(directory: string): void {
  using reader = ImageReader.open(directory);
  using holder = new StemHolder(reader, RESTORE);
  planRestore(reader, holder);
}

if (!isInside())
  for (const [index, { name }] of PROGRAMS.entries())
    test(`changed images of ${name} are planned or refused, by an error that says why`, () =>
      withImage(index, (image, directory) => {
        fc.assert(
          fc.property(mutation, (change) => {
            const file = changed(image, directory, change);
            const start = performance.now();
            const said = refusalOf(() => planOnce(directory));
            if (process.env.STASIS_VERBOSE !== undefined && said !== undefined) console.log(file, said);
            assert.ok(performance.now() - start < PLAN_MS, `${file} took too long`);
          }),
          {
            numRuns: Math.ceil(MUTATIONS / PROGRAMS.length),
            interruptAfterTimeLimit: 60_000,
            endOnFailure: process.env.STASIS_SHRINK === undefined,
          },
        );
      }));

/** Restores that fail leave nothing; those that succeed leave what the image says, which is ended here. */
if (!isInside())
  test('changed images that are restored leave no process behind, in a pid namespace', () => {
    const { status, output } = runInside(import.meta.url);
    assert.equal(status, 0, output);
  });
else
  test('changed images that are restored leave no process behind', () =>
    withImage(2, (image, directory) => {
      const before = everybody();
      const strangers = (): number[] => everybody().filter((pid) => !before.includes(pid));
      const outcomes: string[] = [];
      fc.assert(
        fc.property(mutation, (change) => {
          const file = changed(image, directory, change);
          let restored = false;
          const said = refusalOf(() => {
            restore({ ...RESTORE, directory });
            restored = true;
          });
          outcomes.push(`${file}: ${said ?? 'restored'}`);
          // A program whose image was changed may end in any way; nobody else is in this namespace.
          if (restored) for (const pid of strangers()) attempt('kill', [pid, 9]);
          waitForEnd(strangers, `${file}: ${said ?? 'restored'}`);
        }),
        { numRuns: RESTORES, endOnFailure: true },
      );
      console.log(outcomes.join('\n'));
    }));

function everybody(): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => pid > 0);
}

const WNOHANG = 1;
const __WALL = 0x4000_0000;

/** What was killed needs a moment; who was not is a failure. Orphans here are ours to collect. */
function waitForEnd(left: () => number[], what: string): void {
  for (const deadline = Date.now() + 10_000; left().length > 0; ) {
    assert.ok(Date.now() < deadline, `${what}: pids ${left().join(', ')} are left`);
    for (const pid of left()) attempt('wait4', [pid, 0, WNOHANG | __WALL, 0]);
  }
}
