import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Getopt, UsageError } from './getopt.js';

const getopt = new Getopt([
  { name: 'tree', short: 't', value: 'required' },
  { name: 'verbosity', short: 'v', value: 'optional' },
  { name: 'shell-job', short: 'j', value: 'none', negatable: true },
  { name: 'log-file', short: 'o', value: 'required' },
  { name: 'log-pid', value: 'none', negatable: true },
  { name: 'config', value: 'required' },
  { name: 'config-extra', value: 'none' },
]);

function read(...args: string[]): string {
  const { occurrences, words } = getopt.parse(args);
  const options = occurrences.map(
    ({ option, value, on }) => `${on ? '' : '!'}${option.name}${value === undefined ? '' : `=${value}`}`,
  );
  return [...options, ...words.map((word) => `<${word}>`)].join(' ');
}

const VALID: readonly (readonly [args: string[], expected: string])[] = [
  [['dump', '--tree', '12'], 'tree=12 <dump>'],
  [['--tree=12', 'dump'], 'tree=12 <dump>'],
  [['-t', '12', '-o', 'x'], 'tree=12 log-file=x'],
  [['-t12', '-ox'], 'tree=12 log-file=x'],
  [['-jt12'], 'shell-job tree=12'],
  [['-v'], 'verbosity'],
  [['-v4'], 'verbosity=4'],
  [['-vvv'], 'verbosity=vv'],
  [['-v', '4'], 'verbosity <4>'],
  [['--verbosity=4'], 'verbosity=4'],
  [['--verbosity', '4'], 'verbosity <4>'],
  // What zdtm passes: one dash, and an optional value that is everything after the letter.
  [['-verbosity=0'], 'verbosity=erbosity=0'],
  [['--no-shell-job'], '!shell-job'],
  [['--shell', '--log-f', 'a'], 'shell-job log-file=a'],
  [['--config', 'f', '--config-extra'], 'config=f config-extra'],
  [['--tree='], 'tree='],
  [['--tree', '-5'], 'tree=-5'],
  [['restore', '--', '--tree', '1'], '<restore> <--tree> <1>'],
  [['-', 'x'], '<-> <x>'],
  [[], ''],
];

for (const [args, expected] of VALID)
  test(`command line: ${JSON.stringify(args)}`, () => assert.equal(read(...args), expected));

const INVALID: readonly (readonly [args: string[], message: RegExp])[] = [
  [['--nonsense'], /unknown option --nonsense/],
  [['-q'], /unknown option -q/],
  [['--tree'], /--tree needs a value/],
  [['-t'], /-t needs a value/],
  [['--log'], /may mean any of --log-file, --log-pid/],
  [['--shell-job=yes'], /takes no value/],
  [['--no-shell-job=yes'], /takes no value/],
  [['--no-tree'], /unknown option --no-tree/],
];

for (const [args, message] of INVALID)
  test(`command line refused: ${JSON.stringify(args)}`, () =>
    assert.throws(
      () => read(...args),
      (error) => error instanceof UsageError && message.test(error.message),
    ));
