import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ArgumentError, parseArguments } from './arguments.js';
import { WORKLOADS } from './workloads.js';

test('arguments of the bench', () => {
  const all = parseArguments([]);
  assert.equal(all.rounds, 5);
  assert.deepEqual(all.workloads, WORKLOADS);
  const some = parseArguments(['--peer', '/x/criu', '--rounds', '2', '--json', 'f', '1-gib', '1-process']);
  assert.deepEqual(
    { ...some, workloads: some.workloads.map(({ name }) => name) },
    { peer: '/x/criu', rounds: 2, json: 'f', directory: undefined, workloads: ['1-process', '1-gib'] },
  );
});

test('arguments that make no sense are named', () => {
  for (const { args, message } of [
    { args: ['--rounds', '0'], message: /--rounds 0/ },
    { args: ['--rounds', 'x'], message: /--rounds x/ },
    { args: ['2-gib'], message: /unknown workload: 2-gib/ },
    { args: ['--pear', 'x'], message: /--pear/ },
  ])
    assert.throws(
      () => parseArguments(args),
      (error) => error instanceof ArgumentError && message.test(error.message),
    );
});
