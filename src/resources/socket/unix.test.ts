import assert from 'node:assert/strict';
import test from 'node:test';
import {
  descriptorsOf,
  inNamespace,
  Program,
  QUIET,
  readThrough,
  roundTrip,
  save,
} from '../../testing/descriptors.js';
import { unixDiag } from './unix-diag.js';

if (inNamespace(import.meta.url)) {
  const text = (pid: number, fd: number): string => readThrough(pid, fd).toString();

  test('stream pairs with queued bytes both ways', async () => {
    await roundTrip(
      `a,b=socket.socketpair(); a.send(b'to b'); b.send(b'to a'); a.setblocking(False); a.setsockopt(1,7,9000)`,
      ({ pid }, restored) => {
        const { tid } = restored.of(pid);
        assert.equal(text(tid, 3), 'to a');
        assert.equal(text(tid, 4), 'to b');
        assert.equal(text(pid, 3), 'to a', 'nothing was taken from the program');
      },
    );
  });

  test('packets keep their bounds', async () => {
    await roundTrip(
      `for t in (socket.SOCK_SEQPACKET,socket.SOCK_DGRAM):
  a,b=socket.socketpair(socket.AF_UNIX,t); a.send(b'one'); a.send(b'second'); a.detach(); b.detach()`,
      ({ pid }, restored) => {
        const { tid } = restored.of(pid);
        for (const fd of [4, 6]) {
          assert.equal(text(tid, fd), 'one');
          assert.equal(text(tid, fd), 'second');
        }
      },
    );
  });

  test('a closed peer and a half that was shut down', async () => {
    await roundTrip(
      `a,b=socket.socketpair(); a.send(b'last words'); a.close()
c,d=socket.socketpair(); c.shutdown(socket.SHUT_WR)`,
      ({ pid }, restored) => {
        const { tid } = restored.of(pid);
        assert.equal(text(tid, 4), 'last words');
        assert.equal(text(tid, 4), '');
        const before = descriptorsOf({ ...restored, pid } as never);
        const after = descriptorsOf({ ...restored, pid: tid } as never);
        const shutdowns = (descriptors: typeof before) =>
          descriptors
            .filter(({ info }) => info.link.startsWith('socket:'))
            .map(({ info }) => unixDiag(Number(info.stat.ino))?.shutdown);
        assert.deepEqual(shutdowns(after), shutdowns(before));
      },
    );
  });

  test('descriptors in flight are refused', async () => {
    using program = await Program.start(`${QUIET}a,b=socket.socketpair(); socket.send_fds(a,[b'x'],[0])`);
    assert.throws(() => save(program), /descriptors are in flight/);
  });
}
