import assert from 'node:assert/strict';
import test from 'node:test';
import { PIDFD_GET_INFO } from '../../abi/ioctl.js';
import { PIDFD_INFO_EXIT } from '../../abi/process.js';
import { fileKinds } from '../../engine/registry.js';
import { scratch } from '../../kernel/memory.js';
import { readDescriptor } from '../../kernel/procfs/descriptors.js';
import { readFdinfo } from '../../kernel/procfs/fdinfo.js';
import { attempt } from '../../kernel/syscall.js';
import { inNamespace, options, Program, roundTrip } from '../../testing/descriptors.js';
import type { Refusal } from '../contract.js';
import { openPidfd, takeDescriptor } from '../description/calls.js';
import { descriptorsOf } from '../description/open.js';

if (inNamespace(import.meta.url)) {
  const LIBC = 'import ctypes,time\nlibc=ctypes.CDLL(None)\npo=lambda p,f=0: libc.syscall(434,p,f)\n';

  test('pidfds of itself, a child, a zombie, also non-blocking', async () => {
    await roundTrip(
      `${LIBC}c=os.fork()
if c==0: signal.pause()
z=os.fork()
if z==0: os._exit(3)
os.waitid(os.P_PID,z,os.WEXITED|os.WNOWAIT)
po(os.getpid()); po(c,0o4000); po(z); po(c)
os.kill(c,signal.SIGSTOP)`,
      ({ pid }, restored) => {
        const { tid } = restored.of(pid);
        for (const fd of [3, 4, 5])
          assert.equal(readFdinfo(tid, fd).pidfd?.pid, readFdinfo(pid, fd).pidfd?.pid);
        assert.equal(readFdinfo(tid, 4).flags & 0o4000, 0o4000);
        assert.equal(readDescriptor(tid, 4).stat.ino, readDescriptor(tid, 6).stat.ino);
      },
    );
  });

  test('pidfds of processes that are gone: which were the same, and how they ended', async () => {
    await roundTrip(
      `${LIBC}def gone(how):
  p=os.fork()
  if p==0: how()
  fds=[po(p),po(p)]
  os.waitpid(p,0)
gone(lambda: os._exit(7)); gone(lambda: os.kill(os.getpid(),signal.SIGTERM)); gone(lambda: os._exit(0))`,
      ({ pid }, restored) => {
        const { tid } = restored.of(pid);
        const inodes = [3, 4, 5, 6, 7, 8].map((fd) => readDescriptor(tid, fd).stat.ino);
        assert.equal(new Set(inodes).size, 3);
        assert.equal(inodes[0], inodes[1]);
        for (const fd of [3, 4, 5, 6, 7, 8]) {
          assert.equal(readFdinfo(tid, fd).pidfd?.pid, -1);
          assert.equal(exitOf(tid, fd), exitOf(pid, fd));
        }
      },
    );
  });

  test('a pidfd of a process outside of the tree is refused by name', async () => {
    using program = await Program.start(`${LIBC}po(os.getppid())`);
    const found: Refusal[] = [];
    const [root] = program.processes;
    for (const descriptor of root === undefined ? [] : descriptorsOf(root))
      for (const kind of fileKinds)
        if (kind.member === 'pidfd' && kind.recognise(descriptor))
          kind.check?.(descriptor, (refusal) => found.push(refusal), options);
    assert.equal(found.length, 1);
    assert.match(found[0]?.reason ?? '', /which is not of the tree/);
    assert.match(found[0]?.object ?? '', /descriptor 3 \(anon_inode:\[pidfd\]\)/);
  });
}

/** The wait status, where the kernel tells. */
function exitOf(pid: number, fd: number): number | undefined {
  using process = openPidfd(pid);
  using taken = takeDescriptor(process.fd, fd, 'test');
  scratch.bytes.fill(0, 0, 64);
  scratch.view.setBigUint64(0, BigInt(PIDFD_INFO_EXIT), true);
  if (attempt('ioctl', [taken.fd, PIDFD_GET_INFO, scratch.address]) < 0) return undefined;
  return scratch.view.getInt32(60, true);
}
