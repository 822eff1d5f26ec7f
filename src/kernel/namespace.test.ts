import assert from 'node:assert/strict';
import { closeSync, openSync, readlinkSync } from 'node:fs';
import { test } from 'node:test';
import { RLIMIT_NOFILE } from '../abi/process.js';
import { NativeMemory } from './memory.js';
import { Network, OWN_NETWORK } from './namespace.js';
import { syscall } from './syscall.js';

/** In `step`, this process can open so many files more, and no others. */
function withRoomFor(count: number, step: () => void): void {
  using limits = new NativeMemory(32);
  syscall('prlimit64', [0, RLIMIT_NOFILE, 0, limits.address], 'limits');
  limits.view.setBigUint64(24, limits.view.getBigUint64(8, true), true);
  const opened = Array.from({ length: count + 1 }, () => openSync('/dev/null', 'r'));
  opened.forEach((fd) => {
    closeSync(fd);
  });
  limits.view.setBigUint64(16, BigInt(opened.at(-1) ?? 0), true);
  syscall('prlimit64', [0, RLIMIT_NOFILE, limits.address + 16n, 0], 'limits');
  try {
    step();
  } finally {
    syscall('prlimit64', [0, RLIMIT_NOFILE, limits.address, 0], 'limits');
  }
}

test('whoever cannot have all of a namespace is where he was', () => {
  const own = readlinkSync(OWN_NETWORK);
  for (const room of [0, 1]) {
    withRoomFor(room, () => {
      assert.throws(() => Network.fresh(), { code: 'EMFILE' });
    });
    assert.equal(readlinkSync(OWN_NETWORK), own);
  }
  for (const room of [0, 1]) {
    withRoomFor(room, () => {
      assert.throws(() => Network.enter(OWN_NETWORK), { code: 'EMFILE' });
    });
    assert.equal(readlinkSync(OWN_NETWORK), own);
  }
});
