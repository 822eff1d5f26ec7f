import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { gatherWords, parseConfig } from './config-file.js';
import { UsageError } from './getopt.js';

const VALID: readonly (readonly [line: string, words: string[]])[] = [
  ['', []],
  ['   ', []],
  ['# a comment', []],
  ['  # indented', []],
  ['tcp-established', ['--tcp-established']],
  ['  shell-job  ', ['--shell-job']],
  ['verbosity 4', ['--verbosity', '4']],
  ['verbosity\t4', ['--verbosity', '4']],
  ['timeout 5 # seconds', ['--timeout', '5']],
  ['no-restore-sibling   # this is another comment', ['--no-restore-sibling']],
  ['work-dir "/home/me/my \\"work\\" directory"', ['--work-dir', '/home/me/my "work" directory']],
  ['lsm-profile "selinux:x"  # quoted', ['--lsm-profile', 'selinux:x']],
  ['log-file ""', ['--log-file', '']],
  ['external file[1:2]', ['--external', 'file[1:2]']],
];

for (const [line, words] of VALID)
  test(`configuration: ${JSON.stringify(line)}`, () => assert.deepEqual(parseConfig(line, 'x'), words));

for (const line of ['timeout 5 6', 'work-dir "half', 'work-dir "a" b', 'work-dir "'])
  test(`configuration refused: ${JSON.stringify(line)}`, () =>
    assert.throws(
      () => parseConfig(`\n${line}`, 'file.conf'),
      (error) => error instanceof UsageError && error.message.startsWith('file.conf, line 2: '),
    ));

test('files are read in their order, and only those that are asked for', () => {
  const home = mkdtempSync(join(tmpdir(), 'stasis-config-'));
  try {
    mkdirSync(join(home, '.criu'));
    const file = (name: string): string => join(home, name);
    writeFileSync(file('.criu/default.conf'), 'timeout 1\n');
    writeFileSync(file('env.conf'), 'timeout 2\n');
    writeFileSync(file('given.conf'), 'timeout 3\n');
    const read = (args: string[]): string[] =>
      gatherWords(args, { HOME: home, CRIU_CONFIG_FILE: file('env.conf') }).flatMap(
        ({ words }) => words[1] ?? [],
      );
    assert.deepEqual(read(['dump']).slice(-2), ['1', '2']);
    assert.deepEqual(read(['dump', '--no-default-config']), ['2']);
    assert.deepEqual(read(['dump', '--config', file('given.conf')]), ['2', '3']);
    assert.deepEqual(read(['dump', `--config=${file('given.conf')}`]), ['2', '3']);
    assert.deepEqual(read(['dump', '--config', file('missing')]), ['2']);
  } finally {
    rmSync(home, { recursive: true });
  }
});
