import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { auxEntries, readAuxv } from './auxv.js';
import { readCgroup } from './cgroup.js';
import { readCmdline, readComm, readEnviron, splitStrings } from './cmdline.js';
import { readDescriptors } from './descriptors.js';
import { ProcfsError, unlessVanished } from './error.js';
import { readIdMap, readTimeOffsets } from './idmap.js';
import { readIo } from './io.js';
import { readLimits } from './limits.js';
import { readLocks } from './locks.js';
import { readMapFile, readMaps } from './maps.js';
import { readMountinfo } from './mountinfo.js';
import { readNamespaces } from './ns.js';
import { isPresent, Pagemap, readPagemap } from './pagemap.js';
import * as scalars from './scalars.js';
import { readSmaps } from './smaps.js';
import { readStat } from './stat.js';
import { readStatus } from './status.js';
import * as system from './system.js';
import { readTimers } from './timers.js';
import { listTids, readTree } from './tree.js';

const { pid } = process;

test('stat and status of this process and its threads agree', () => {
  const stat = readStat(pid);
  const status = readStatus(pid);
  assert.equal(stat.pid, pid);
  assert.equal(stat.ppid, process.ppid);
  assert.equal(stat.comm, status.name);
  assert.equal(stat.comm, readComm(pid));
  assert.equal(status.uid.effective, process.geteuid?.());
  const tids = listTids(pid);
  assert.equal(tids.length, status.threads);
  assert.equal(readStatus(pid, { tid: tids.at(-1) }).pid, tids.at(-1));
  assert.equal(readStat(pid, { tid: tids.at(-1) }).starttime >= stat.starttime, true);
});

test('maps and smaps of this process agree', () => {
  const stack = readMaps(pid).find((mapping) => mapping.path === '[stack]');
  const detailed = readSmaps(pid);
  const sameStack = detailed.find((mapping) => mapping.path === '[stack]');
  assert.equal(stack?.end, sameStack?.end);
  assert.ok(sameStack?.vmFlags.includes('gd'));
  const binary = detailed.find((mapping) => mapping.path.endsWith('node'));
  assert.ok(binary !== undefined);
  const file = readMapFile(pid, binary);
  assert.equal(file.path, binary.path);
  assert.equal(file.stat.ino, binary.inode);
});

test('pagemap of the stack', () => {
  const stat = readStat(pid);
  const start = stat.startstack & ~0xfffn;
  const entries = readPagemap(pid, { start, end: start + 4096n });
  assert.equal(entries.length, 1);
  assert.ok(isPresent(entries[0] ?? 0n));
  const pagemap = new Pagemap(pid);
  const room = new BigUint64Array(4);
  assert.equal(pagemap.read(start, start + 4096n, room).buffer, room.buffer);
  pagemap[Symbol.dispose]();
  pagemap[Symbol.dispose]();
});

test('descriptors, with a file that is deleted', () => {
  const directory = mkdtempSync(join(tmpdir(), 'procfs-'));
  const path = join(directory, 'a\nb');
  writeFileSync(path, 'x');
  const fd = openSync(path, 'r+');
  try {
    unlinkSync(path);
    const found = readDescriptors(pid);
    const mine = found.find((descriptor) => descriptor.fd === fd);
    assert.equal(mine?.link, `${path} (deleted)`);
    assert.equal(mine?.stat.nlink, 0n);
    assert.equal(mine?.info.ino, mine?.stat.ino);
    assert.ok((mine?.info.flags ?? 0) & 2);
    assert.deepEqual(
      found.map((each) => each.fd),
      found.map((each) => each.fd).sort((a, b) => a - b),
    );
    assert.ok(found.some((descriptor) => descriptor.info.epoll.length > 0));
    assert.ok(found.some((descriptor) => descriptor.info.eventfd !== undefined));
  } finally {
    closeSync(fd);
    rmSync(directory, { recursive: true });
  }
});

test('tree with a child', async () => {
  const child = spawn('sleep', ['60'], { stdio: 'ignore' });
  try {
    const tree = readTree(pid);
    assert.equal(tree[0]?.pid, pid);
    assert.ok(tree[0]?.children.includes(child.pid ?? -1));
    const entry = tree.find((each) => each.pid === child.pid);
    assert.equal(entry?.parent, pid);
    assert.ok(tree[0]?.tids.includes(entry?.parentTid ?? -1));
  } finally {
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
  }
  assert.equal(
    unlessVanished(() => readStat(child.pid ?? -1)),
    undefined,
  );
  assert.throws(() => readTree(child.pid ?? -1), ProcfsError);
});

test('everything else of this process parses', () => {
  assert.equal(splitStrings(readCmdline(pid)).length >= 1, true);
  assert.ok(splitStrings(readEnviron(pid)).some((entry) => entry.startsWith('PATH=')));
  assert.deepEqual(auxEntries(readAuxv(pid)).find((entry) => entry.type === 6n)?.value, 4096n);
  assert.equal(readLimits(pid).length, 16);
  assert.ok(readMountinfo(pid).some((mount) => mount.mountPoint === '/'));
  assert.ok(readCgroup(pid).length > 0);
  assert.ok(readNamespaces(pid).has('pid_for_children'));
  assert.ok(readIo(pid).rchar > 0n);
  assert.deepEqual(readTimers(pid), []);
  readLocks();
  readIdMap(pid, 'uid_map');
  readTimeOffsets(pid);
  scalars.readLoginuid(pid);
  scalars.readLsmLabel(pid);
  scalars.readWchan(pid);
  assert.equal(scalars.readPersonality(pid) & 0xff, 0);
  assert.ok(scalars.readTimerslack(pid) >= 0n);
  assert.ok(scalars.readOomScoreAdj(pid) >= -1000);
  assert.ok((scalars.readCoredumpFilter(pid) ?? 0) >= 0);
  const busy = scalars.readSyscall(pid);
  assert.ok(busy.kind === 'running' || busy.kind === 'syscall');
});

test('values of the system', () => {
  assert.ok(system.readUptime().up_cs > 0);
  assert.ok(system.readPidMax() >= 4096);
  assert.ok(system.readCapLastCap() >= 37);
  assert.equal(system.readOverflowUid(), 65534);
  assert.match(system.readBootId(), /^[0-9a-f-]{36}$/);
});
