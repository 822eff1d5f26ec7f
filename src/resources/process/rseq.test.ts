import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readRemote } from '../../kernel/remote.js';
import { giveBack } from '../../tape/borrow.js';
import { borrowAll, freezeProcess, isInside, runInside, Subject, thaw } from './testing.js';

/**
 * A thread that stays in a critical section for good: `jmp` to itself, and an abort handler that counts and goes
 * back in. The kernel aborts it whenever it is preempted.
 */
const PROGRAM = `
import ctypes, mmap, struct, sys, threading
c = ctypes.CDLL(None)
c.pthread_self.restype = ctypes.c_void_p
m = mmap.mmap(-1, 8192, prot=7)
base = ctypes.addressof(ctypes.c_char.from_buffer(m))
start, post, abort = base + 4, base + 6, base + 32
m[0:6] = bytes.fromhex('48897708ebfe')          # mov [rdi+8],rsi; jmp $
m[28:32] = struct.pack('<I', 0x53053053)
m[32:40] = bytes.fromhex('f048ff0248897708')     # lock inc [rdx]; mov [rdi+8],rsi
m[40:42] = bytes.fromhex('ebda')                 # jmp start
m[4096:4128] = struct.pack('<IIQQQ', 0, 0, start, post - start, abort)
offset = ctypes.c_ssize_t.in_dll(c, '__rseq_offset').value
def run():
    area = c.pthread_self() + offset
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(base)(area, base + 4096, base + 4224)
threading.Thread(target=run, daemon=True).start()
while ctypes.c_uint64.from_address(base + 4224).value == 0: pass
print(start, abort, base + 4224)
sys.stdin.readline()
`;

if (!isInside()) {
  test('critical sections of a running program, in a pid namespace', () => {
    const { status, output } = runInside(import.meta.url);
    assert.equal(status, 0, output);
  });
} else {
  test('a thread frozen in a critical section goes on at its abort handler', () => {
    using subject = new Subject(PROGRAM);
    const [start = 0n, abort = 0n, counter = 0n] = subject.said().split(' ').map(BigInt);
    const count = () => Buffer.from(readRemote(subject.pid, counter, 8)).readBigUInt64LE();
    let aborted = 0;
    for (let i = 0; i < 20; i++) {
      const found = freezeProcess(subject.pid);
      const [, thread] = found.threads;
      const ip = thread?.frozen?.registers.ip ?? 0n;
      const before = count();
      assert.notEqual(ip, start, 'still in the critical section');
      assert.ok(ip >= abort && ip < abort + 16n, `at 0x${ip.toString(16)}`);
      if (ip === abort) aborted++;
      giveBack(borrowAll(found));
      thaw(found);
      for (const deadline = Date.now() + 10_000; count() === before; )
        assert.ok(Date.now() < deadline, 'it stands still');
    }
    assert.ok(aborted > 0);
  });
}
