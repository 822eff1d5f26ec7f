import assert from 'node:assert/strict';
import test from 'node:test';
import { inNamespace, options, Program, QUIET, readThrough, roundTrip } from '../../testing/descriptors.js';
import { type DumpOptions, nameOf, type Refusal } from '../contract.js';
import { checkFiles } from './check.js';
import { fileKinds } from './index.js';

if (inNamespace(import.meta.url)) {
  const text = (pid: number, fd: number): string => readThrough(pid, fd).toString();

  test('contents, size and more than one description of an end', async () => {
    await roundTrip(
      `r,w=os.pipe(); os.write(w,b'waiting'); fcntl.fcntl(r,1031,8192)
r2=os.open('/proc/self/fd/%d'%r,os.O_RDONLY|os.O_NONBLOCK)`,
      ({ pid }, restored) => {
        const { tid } = restored.of(pid);
        assert.equal(text(tid, 5), 'waiting');
        assert.equal(text(pid, 3), 'waiting', 'nothing was taken from the program');
      },
    );
  });

  test('full, and with an end closed', async () => {
    await roundTrip(
      `r,w=os.pipe(); os.set_blocking(w,False)
n=0
try:
  while True: n+=os.write(w,b'x'*1000)
except BlockingIOError: pass
os.close(w)
a,b=os.pipe(); os.close(a)`,
      ({ pid }, restored) => {
        const { tid } = restored.of(pid);
        assert.ok(text(tid, 3).length > 60_000);
        assert.equal(text(tid, 3), '', 'the write end is closed');
      },
    );
  });

  test('packets', async () => {
    await roundTrip(
      `p,q=os.pipe2(os.O_DIRECT); os.write(q,b'one'); os.write(q,b'second')`,
      ({ pid }, restored) => {
        const { tid } = restored.of(pid);
        assert.equal(text(tid, 3), 'one');
        assert.equal(text(tid, 3), 'second');
      },
    );
  });

  test('one end outside the tree is refused', async () => {
    using program = await Program.start(`${QUIET}r,w=os.pipe()
if os.fork()==0:
  os.close(w); signal.pause()
os.close(r)`);
    const [member] = program.processes;
    assert.ok(member);
    const refusals: Refusal[] = [];
    const check = (changed: Partial<DumpOptions>): Refusal[] => {
      refusals.length = 0;
      checkFiles([member], fileKinds, (refusal) => refusals.push(refusal), { ...options, ...changed });
      return refusals;
    };
    const [refusal] = check({});
    assert.equal(refusal?.task, nameOf(member));
    assert.match(refusal?.object ?? '', /^descriptor 4 \(pipe:\[\d+\]\)$/);
    assert.equal(check({ outsidePipes: true }).length, 0);
    checkFiles(program.processes, fileKinds, (refusal) => assert.fail(refusal.reason), options);
  });
}
