import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Network } from '../../kernel/namespace.js';
import * as nft from '../../kernel/netlink/nftables.js';
import { iptables, nftables } from './filters.js';

function without(program: string): string | false {
  return spawnSync(program, ['--version']).status === 0 ? false : `${program} is not installed`;
}

/** Of this thread's network, for as long as the socket is open. */
function makeTable(name: string, note?: Uint8Array): Disposable {
  const netlink = nft.openNftables();
  netlink.batch(nft.transaction([nft.newTable(name, note !== undefined, note)]));
  return netlink;
}

test('rules of iptables that the program there is does not show are no empty table', {
  skip: without('iptables-legacy'),
}, () => {
  const directory = mkdtempSync(join(tmpdir(), 'stasis-filters-'));
  const { PATH } = process.env;
  using _ = Network.fresh();
  assert.equal(iptables.read(), '');
  assert.equal(spawnSync('iptables-legacy', ['-w', '-A', 'INPUT', '-j', 'DROP']).status, 0);
  assert.match(iptables.read(), /-A INPUT -j DROP/);
  try {
    // As iptables-nft, where there is no iptables-legacy.
    writeFileSync(join(directory, 'iptables-save'), '#!/bin/sh\n', { mode: 0o755 });
    process.env.PATH = directory;
    assert.throws(() => iptables.read(), /the table filter is shown only by iptables-legacy-save/);
  } finally {
    process.env.PATH = PATH;
    rmSync(directory, { recursive: true });
  }
});

test('a table is ours by its note, whatever it is called', { skip: without('nft') }, () => {
  using _ = Network.fresh();
  using _ours = makeTable('stasis-1-2', nft.PASSING_NOTE);
  assert.equal(nftables.read(), '');
  using _theirs = makeTable('stasis-1-3');
  assert.match(nftables.read(), /^table inet stasis-1-3 \{\s*\}\s*$/);
});

test('a table whose name nft cannot say is a problem', { skip: without('nft') }, () => {
  using _ = Network.fresh();
  using _table = makeTable('a; flush ruleset');
  assert.throws(() => nftables.read(), /nft has no words for a table called "inet a; flush ruleset"/);
});
