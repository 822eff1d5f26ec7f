import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import test from 'node:test';
import * as S from '../../abi/socket.js';
import { readDescriptors } from '../../kernel/procfs/descriptors.js';
import { readStat } from '../../kernel/procfs/stat.js';
import { inNamespace, Program, QUIET, readThrough, roundTrip, save } from '../../testing/descriptors.js';
import type { DumpContext } from '../contract.js';
import { openPidfd, takeDescriptor } from '../description/calls.js';
import { peekDatagrams } from './datagram-queue.js';
import { localAddress, peerAddress, printAddress, readSockaddr } from './inet-address.js';
import { getNumber } from './option-bytes.js';
import { peersOf } from './proc-net.js';

if (inNamespace(import.meta.url)) {
  /** Look at a descriptor of a program, or of what stands for it. */
  const through = <T>(pid: number, fd: number, look: (taken: number) => T): T => {
    using pidfd = openPidfd(pid);
    using taken = takeDescriptor(pidfd.fd, fd, 'test');
    return look(taken.fd);
  };
  /** What `look` says of sockets must be the same after; the program is gone by then, and its addresses free. */
  const compare = async <T>(
    code: string,
    look: (pid: number) => T,
    check: (after: number, seen: T) => void = () => {},
  ): Promise<void> => {
    let seen: T | undefined;
    await roundTrip(
      code,
      ({ pid }, restored) => {
        const after = restored.of(pid).tid;
        assert.deepEqual(look(after), seen);
        check(after, seen as T);
      },
      (program) => {
        seen = look(program.pid);
        endNow(program);
      },
    );
  };
  const endNow = (program: Program): void => {
    program.end();
    for (const { pid } of program.processes) while (isThere(pid));
  };
  const isThere = (pid: number): boolean => {
    try {
      return readStat(pid).state !== 'Z';
    } catch {
      return false;
    }
  };
  const queueOf = (pid: number, fd: number): string[] =>
    through(pid, fd, (taken) => {
      const family = getNumber(taken, S.SOL_SOCKET, S.SO_DOMAIN) ?? 0;
      const context = { undo: undefined, options: { dropPackets: true } } as unknown as DumpContext;
      const socket = { family, type: S.SOCK_DGRAM, protocol: S.IPPROTO_UDP, inode: 0 };
      return peekDatagrams(taken, socket, {} as never, context).map(({ from, data }) => {
        const sender = printAddress(readSockaddr(Buffer.from(from, 'hex')));
        return `${sender} ${Buffer.from(data, 'base64').toString().slice(0, 20)}`;
      });
    });

  const inodesOf = (pid: number): number[] =>
    readDescriptors(pid).flatMap(({ fd, link }) => (link.startsWith('socket:') ? [fd] : []));
  /** A datagram without bytes is shown once to whoever peeks with an offset. */
  const queues = (pid: number): string[][] =>
    inodesOf(pid).map((fd) => queueOf(pid, fd).filter((each) => !each.endsWith(' ')));

  test('UDP: bound, connected, connected to port 0, unbound; IPv4 and IPv6', async () => {
    await compare(
      `import socket as s
for f,h in ((s.AF_INET,'127.0.0.1'),(s.AF_INET6,'::1')):
  a=s.socket(f,s.SOCK_DGRAM); a.bind((h,0)); a.detach()
  b=s.socket(f,s.SOCK_DGRAM); b.connect((h,53)); b.detach()
  c=s.socket(f,s.SOCK_DGRAM); c.connect((h,0)); c.detach()
  d=s.socket(f,s.SOCK_DGRAM|s.SOCK_NONBLOCK); d.detach()`,
      (pid) =>
        inodesOf(pid).map((fd) => through(pid, fd, (taken) => [localAddress(taken), peerAddress(taken)])),
      (_, seen) => assert.equal(seen.length, 8),
    );
  });

  test('queued datagrams keep their order, bounds and senders', async () => {
    await compare(
      `r=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); r.bind(('0.0.0.0',0)); p=r.getsockname()[1]
x=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); y=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)
x.bind(('127.0.0.9',0))
for n in range(3): x.sendto(b'x%d'%n,('127.0.0.1',p)); y.sendto(b'y%d'%n,('127.0.0.2',p))
x.sendto(b'',('127.0.0.1',p)); y.sendto(b'z'*60000,('127.0.0.1',p)); y.sendto(b'odd',('127.0.0.1',p))`,
      queues,
      (after, seen) => {
        assert.equal(seen[0]?.length, 8);
        const read = Array.from({ length: 9 }, () => readThrough(after, 3).length);
        assert.deepEqual(read, [2, 2, 2, 2, 2, 2, 0, 60_000, 3]);
      },
    );
  });

  test('queued datagrams of IPv6, of mapped senders, and of a socket that was connected after', async () => {
    await compare(
      `r=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM); r.bind(('::',0)); p=r.getsockname()[1]
x=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); y=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)
x.sendto(b'four',('127.0.0.1',p)); y.sendto(b'six',('::1',p))
c=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM); c.bind(('::1',0)); y.sendto(b'early',c.getsockname()); c.connect(('::1',9))`,
      (pid) => queues(pid).map((queue) => queue.sort()),
      (_, seen) =>
        assert.deepEqual(
          seen.map(({ length }) => length),
          [2, 0, 0, 1],
        ),
    );
  });

  test('several sockets with one port: each has its own datagrams again', async () => {
    const OPTIONS = [S.SO_REUSEADDR, S.SO_REUSEPORT, S.SO_INCOMING_CPU, S.SO_PEEK_OFF, S.SO_RCVBUF];
    await compare(
      `s=[]
for f,h in ((socket.AF_INET,'127.0.0.1'),(socket.AF_INET6,'::1')):
  p=0
  for n in range(4):
    r=socket.socket(f,socket.SOCK_DGRAM); r.setsockopt(1,15,1); r.bind((h,p)); p=r.getsockname()[1]; s.append(r)
  for n in range(40):
    x=socket.socket(f,socket.SOCK_DGRAM); x.sendto(b'%d'%n,(h,p)); x.close()
o=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); o.setsockopt(1,2,1); o.bind(('127.0.0.1',0))
q=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); q.setsockopt(1,2,1)
x=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); x.sendto(b'first',o.getsockname())
q.bind(o.getsockname()); x.sendto(b'second',o.getsockname()); o.setsockopt(1,2,0)`,
      (pid) =>
        inodesOf(pid).map((fd) => [
          ...queueOf(pid, fd),
          ...through(pid, fd, (taken) => OPTIONS.map((each) => getNumber(taken, S.SOL_SOCKET, each))),
        ]),
      (_, seen) =>
        assert.equal(
          seen.reduce((sum, each) => sum + each.length - OPTIONS.length, 0),
          82,
        ),
    );
  });

  test('raw sockets: bound and connected addresses, also of the protocol of TCP', async () => {
    await compare(
      `a=socket.socket(socket.AF_INET,socket.SOCK_RAW,6); a.bind(('127.0.0.78',0))
b=socket.socket(socket.AF_INET,socket.SOCK_RAW,201); b.connect(('127.0.0.2',0))
c=socket.socket(socket.AF_INET6,socket.SOCK_RAW,201); c.connect(('::1',0)); d=socket.socket(socket.AF_INET,socket.SOCK_RAW,255)`,
      (pid) => {
        const looked = inodesOf(pid).map((fd) =>
          through(pid, fd, (taken) => [localAddress(taken), getNumber(taken, S.SOL_IP, S.IP_HDRINCL)]),
        );
        const peers = [S.AF_INET, S.AF_INET6].map((family) => [
          ...peersOf(pid, family, S.SOCK_RAW, 201).values(),
        ]);
        return { looked, peers };
      },
      (_, { looked, peers }) => {
        assert.equal(looked.length, 4);
        assert.deepEqual(
          peers.map(({ length }) => length),
          [1, 1],
        );
      },
    );
  });

  test('what is held back of a datagram is refused by name', async () => {
    using program = await Program.start(
      `${QUIET}a=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); a.connect(('127.0.0.1',9)); a.send(b'part',socket.MSG_MORE)`,
    );
    assert.throws(() => save(program), /descriptor 3 .*holds back \d+ bytes/);
  });

  test('a datagram without bytes is saved once, and refused when it cannot be seen again', async () => {
    using program = await Program.start(
      `${QUIET}r=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); r.bind(('127.0.0.1',0))
x=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); x.sendto(b'',r.getsockname()); x.sendto(b'x',r.getsockname())`,
    );
    const again = () => {
      rmSync(save(program), { recursive: true });
    };
    again();
    assert.throws(again, /descriptor 3 .*datagrams without bytes/);
  });

  test('unread packets of raw sockets are refused, and dropped as criu does', async () => {
    using program = await Program.start(
      `${QUIET}r=socket.socket(socket.AF_INET,socket.SOCK_RAW,17); r.bind(('127.0.0.77',0))
x=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); x.sendto(b'x',('127.0.0.77',9))`,
    );
    assert.throws(() => save(program), /descriptor 3 .*unread packets/);
    save(program, { dropPackets: true });
  });
}
