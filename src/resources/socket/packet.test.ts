import assert from 'node:assert/strict';
import test from 'node:test';
import * as P from '../../abi/packet.js';
import * as S from '../../abi/socket.js';
import { readDescriptors } from '../../kernel/procfs/descriptors.js';
import { inNamespace, Program, QUIET, roundTrip, save } from '../../testing/descriptors.js';
import { openPidfd, takeDescriptor } from '../description/calls.js';
import { netlinkSockets } from './netlink-diag.js';
import { getNumber } from './option-bytes.js';
import { packetSockets } from './packet-diag.js';

if (inNamespace(import.meta.url)) {
  const through = <T>(pid: number, fd: number, look: (taken: number) => T): T => {
    using pidfd = openPidfd(pid);
    using taken = takeDescriptor(pidfd.fd, fd, 'test');
    return look(taken.fd);
  };
  const inodes = (pid: number): { fd: number; inode: number }[] =>
    readDescriptors(pid).flatMap(({ fd, link, stat }) =>
      link.startsWith('socket:') ? [{ fd, inode: Number(stat.ino) }] : [],
    );
  const PACKET = (pid: number) =>
    inodes(pid).map(({ fd, inode }) => ({
      diag: packetSockets().get(inode),
      fanout: through(pid, fd, (taken) => getNumber(taken, S.SOL_PACKET, P.PACKET_FANOUT)),
      bypass: through(pid, fd, (taken) => getNumber(taken, S.SOL_PACKET, P.PACKET_QDISC_BYPASS)),
      owner: readDescriptors(pid).find((each) => each.fd === fd)?.stat.uid,
    }));

  test('packet sockets: interface, protocol, memberships, rings, fanout, SOCK_PACKET', async () => {
    await roundTrip(
      `import struct
E=0x88b5; N=socket.htons(E)
a=socket.socket(17,3,0); a.setsockopt(263,10,2); a.setsockopt(263,12,32); a.setsockopt(263,7,100)
for o in (8,9,14,20,23): a.setsockopt(263,o,1)
a.setsockopt(263,17,1); a.setsockopt(263,1,struct.pack('iHH8s',1,2,0,b'')); a.setsockopt(263,1,struct.pack('iHH8s',1,2,0,b''))
a.setsockopt(263,1,struct.pack('iHH8s',1,0,6,bytes((1,0,94,0,0,9,0,0))))
a.setsockopt(263,5,struct.pack('7I',1<<16,2,2048,64,77,0,0)); a.bind(('lo',E)); os.fchown(a.fileno(),5,6)
for n in range(2):
  f=socket.socket(17,2,0); f.bind(('lo',E)); f.setsockopt(263,18,4711|0x1001<<16); f.detach()
o=socket.socket(17,10,N)
v=socket.socket(17,3,0); v.setsockopt(263,15,1); v.setsockopt(263,13,struct.pack('4I',4096,1,1024,4)); v.detach()`,
      ({ pid }, restored) => {
        const before = PACKET(pid);
        assert.deepEqual(PACKET(restored.of(pid).tid), before);
        assert.equal(before.length, 5);
        assert.equal(before[0]?.diag?.memberships[0]?.count ?? 0, 1);
        assert.equal(before[1]?.fanout, (4711 | (0x1001 << 16)) >>> 0);
      },
    );
  });

  test('a ring that packets have gone through is refused', async () => {
    using program = await Program.start(
      `${QUIET}import struct
a=socket.socket(17,3,0); a.setsockopt(263,5,struct.pack('4I',4096,1,2048,2)); a.bind(('lo',0x88b6))
b=socket.socket(17,2,0); b.sendto(b'hello',('lo',0x88b6))
select.select([a],[],[])`,
    );
    assert.throws(() => save(program), /descriptor 3 .*packets have gone through its ring/);
  });

  test('unread packets are refused, and dropped as criu does', async () => {
    using program = await Program.start(
      `${QUIET}a=socket.socket(17,3,0); a.bind(('lo',0x88b7))
b=socket.socket(17,2,0); b.sendto(b'hello',('lo',0x88b7)); select.select([a],[],[])`,
    );
    assert.throws(() => save(program), /descriptor 3 .*unread packets/);
    save(program, { dropPackets: true });
  });

  test('netlink sockets: groups beyond 32, type, connection, options', async () => {
    const look = (pid: number) =>
      inodes(pid).map(({ fd, inode }) => ({
        diag: { ...netlinkSockets().get(inode), port: 0 },
        options: through(pid, fd, (taken) =>
          [S.SO_TYPE, S.SO_PROTOCOL, S.SO_RCVBUF].map((each) => getNumber(taken, S.SOL_SOCKET, each)),
        ),
        strict: through(pid, fd, (taken) => getNumber(taken, S.SOL_NETLINK, 12)),
      }));
    await roundTrip(
      `a=socket.socket(16,3,0); a.bind((0,0)); a.setsockopt(270,12,1); a.setsockopt(270,5,1)
for g in (1,5,32,33,36): a.setsockopt(270,1,g)
b=socket.socket(16,2,0); b.setsockopt(1,8,30000)
c=socket.socket(16,3,15); c.bind((0,2)); d=socket.socket(16,3,15); d.connect((c.getsockname()[0],2))`,
      ({ pid }, restored) => {
        const before = look(pid);
        // The program is still there, and with it its port: the new one is connected to it all the same.
        assert.deepEqual(look(restored.of(pid).tid), before);
        assert.deepEqual(before[0]?.diag.groups, [(2 ** 31 + 17) >>> 0, 9]);
        assert.equal(before[0]?.strict, 1);
        assert.equal(before[3]?.diag.state, 1);
      },
    );
  });

  test('unread messages of netlink are refused', async () => {
    using program = await Program.start(
      `${QUIET}import struct
a=socket.socket(16,3,0); a.send(struct.pack('=IHHIIB3x',20,18,0x301,1,0,0))
select.select([a],[],[])`,
    );
    assert.throws(() => save(program), /descriptor 3 .*unread messages/);
  });
}
