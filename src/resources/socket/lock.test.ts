import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AF_INET, AF_INET6 } from '../../abi/socket.js';
import { Scratch } from '../../cli/testing.js';
import { listTables, openNftables } from '../../kernel/netlink/nftables.js';
import { playOne } from '../../tape/play.js';
import { endStem, startStem } from '../../tape/stem.js';
import { Tape } from '../../tape/tape.js';
import type { InetAddress } from './inet-address.js';
import { lastingLocks, lastingTable, lockLastingly, OwnedLock, unlock, unlockOn } from './lock.js';
import { removeCriuChains } from './lock-iptables.js';
import { type Connection, wireAddress } from './lock-table.js';

function at(family: number, words: readonly number[], port: number): InetAddress {
  return { family, words, port, scope: 0 };
}

const LOOPBACK = 0x0100_007f;
const MAPPED = [0, 0, 0xffff_0000, LOOPBACK];
const CONNECTIONS: readonly Connection[] = [
  { local: at(AF_INET, [LOOPBACK], 80), remote: at(AF_INET, [LOOPBACK], 4000) },
  { local: at(AF_INET6, [0, 0, 0, 0x0100_0000], 80), remote: at(AF_INET6, [0, 0, 0, 0x0100_0000], 4000) },
  // The same as the first, as a socket of IPv6 has it.
  { local: at(AF_INET6, MAPPED, 80), remote: at(AF_INET6, MAPPED, 4000) },
];

const OWNER = { directory: '/images/one', pid: 12, starttime: 345 };

function tables(): string[] {
  using netlink = openNftables();
  return listTables(netlink).map(({ name }) => name);
}

test('v4-mapped addresses are of IPv4 on the wire', () => {
  assert.deepEqual(wireAddress(at(AF_INET6, MAPPED, 80)), at(AF_INET, [LOOPBACK], 80));
  const six = at(AF_INET6, [0, 0, 0, 0x0100_0000], 80);
  assert.equal(wireAddress(six), six);
});

test('an owned lock goes with its owner', () => {
  // Other tests have theirs in this namespace.
  const own = () => tables().filter((name) => name.startsWith(`stasis-${process.pid}-`));
  {
    using _ = OwnedLock.make(CONNECTIONS, undefined);
    assert.equal(own().length, 1);
  }
  assert.deepEqual(own(), []);
});

test('a lasting lock says whose it is, and goes when it is removed', () => {
  const name = lastingTable('12345678-1234-1234-1234-123456789abc');
  assert.equal(name, 'CRIU-12345678-1234-1234-12');
  lockLastingly(name, CONNECTIONS, OWNER);
  assert.deepEqual(
    lastingLocks().filter(({ table }) => table === name),
    [{ table: name, owner: OWNER }],
  );
  assert.ok(unlock(name));
  assert.ok(!unlock(name));
});

test('a tape removes a lasting lock, as the guardian does', () => {
  const name = lastingTable('abcdefgh-1234-1234-1234-123456789abc');
  lockLastingly(name, CONNECTIONS, OWNER);
  const workspace = { address: 0x1000_0000_0000n, size: 0x20_0000n };
  const actor = startStem({ workspace, sliceSize: 0x10_0000, name: 'test' });
  try {
    const tape = new Tape('unlock');
    unlockOn(tape, name);
    playOne(actor, tape);
    assert.ok(!tables().includes(name));
  } finally {
    endStem(actor.tid);
    unlock(name);
  }
});

test('a program of packet filters that does not end is not waited for forever', () => {
  using scratch = new Scratch();
  scratch.script('iptables', 'exec sleep 600');
  const { PATH } = process.env;
  process.env.PATH = `${scratch.path}:${PATH}`;
  try {
    assert.throws(
      () => removeCriuChains(300),
      /`iptables -w -t filter -D INPUT -j CRIU`.* was not done within 0.3 s/,
    );
  } finally {
    process.env.PATH = PATH;
  }
});

test('a thousand connections fit into a table', () => {
  const many = Array.from({ length: 1000 }, (_, index) => ({
    local: at(AF_INET6, [1, 2, 3, 4], 80),
    remote: at(AF_INET6, [5, 6, 7, 8], index + 1),
  }));
  using _ = OwnedLock.make(many, undefined);
});
