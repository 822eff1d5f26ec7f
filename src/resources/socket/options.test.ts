import assert from 'node:assert/strict';
import test from 'node:test';
import * as S from '../../abi/socket.js';
import { readDescriptors } from '../../kernel/procfs/descriptors.js';
import { readStat } from '../../kernel/procfs/stat.js';
import { inNamespace, Program, QUIET, roundTrip, save } from '../../testing/descriptors.js';
import { openPidfd, takeDescriptor } from '../description/calls.js';
import { groupsOf, knownGroups, parseIgmp, parseIgmp6 } from './multicast.js';
import { getBytes } from './option-bytes.js';
import { OPTIONS } from './option-table.js';
import { dumpOptions } from './options.js';
import { parsePeers } from './proc-net.js';

if (inNamespace(import.meta.url)) {
  const through = <T>(pid: number, fd: number, look: (taken: number) => T): T => {
    using pidfd = openPidfd(pid);
    using taken = takeDescriptor(pidfd.fd, fd, 'test');
    return look(taken.fd);
  };
  const sockets = (pid: number): number[] =>
    readDescriptors(pid).flatMap(({ fd, link }) => (link.startsWith('socket:') ? [fd] : []));
  const number = (fd: number, option: number): number =>
    new DataView(getBytes(fd, S.SOL_SOCKET, option, 4)?.buffer ?? new ArrayBuffer(4)).getInt32(0, true);
  const compare = async <T>(
    code: string,
    look: (pid: number) => T,
    check: (seen: T) => void,
  ): Promise<void> => {
    let seen: T | undefined;
    await roundTrip(
      code,
      ({ pid }, restored) => assert.deepEqual(look(restored.of(pid).tid), seen),
      (program) => {
        seen = look(program.pid);
        check(seen);
        program.end();
        while (isThere(program.pid));
      },
    );
  };
  const isThere = (pid: number): boolean => {
    try {
      return readStat(pid).state !== 'Z';
    } catch {
      return false;
    }
  };
  const everyOption = (fd: number): Record<string, string> => {
    const socket = {
      family: number(fd, S.SO_DOMAIN),
      type: number(fd, S.SO_TYPE),
      protocol: number(fd, S.SO_PROTOCOL),
      inode: 0,
    };
    const values: Record<string, string> = {};
    for (const { name, level, option, length, of } of OPTIONS)
      if (of(socket)) values[name] = Buffer.from(getBytes(fd, level, option, length) ?? []).toString('hex');
    return values;
  };
  const all = (pid: number) =>
    sockets(pid).map((fd) => through(pid, fd, (taken) => [everyOption(taken), dumpOptions(taken)] as const));

  test('every option of IPv4 that is a number, set to something else', async () => {
    await compare(
      `s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)
for o,v in ((1,1),(29,1),(40,1),(45,1),(46,50),(49,0),(36,7),(12,5),(18,3),(6,1),(82,1),(75,1)): s.setsockopt(1,o,v)
s.setsockopt(1,47,(123456).to_bytes(8,'little')); s.setsockopt(1,37,(1<<3|1<<4).to_bytes(4,'little'))
s.setsockopt(1,13,(1).to_bytes(4,'little')+(9).to_bytes(4,'little')); s.setsockopt(1,61,(1).to_bytes(4,'little')+(1).to_bytes(4,'little'))
for o,v in ((1,16),(2,33),(6,1),(7,1),(8,1),(10,2),(11,1),(12,1),(13,1),(15,1),(19,1),(20,1),(21,9),(23,1),(24,1),(25,1),(26,1),(33,3),(34,0),(49,0),(51,0x20001000)): s.setsockopt(0,o,v)
s.setsockopt(0,32,bytes((127,0,0,1))); s.setsockopt(0,50,(1).to_bytes(4,'big'))
s.setsockopt(0,4,bytes((148,4,0,0)))
for o,v in ((101,1),(102,1),(103,1000),(104,1),(1,1)): s.setsockopt(17,o,v)
s.setsockopt(1,25,b'lo\\0')
s.bind(('127.0.0.1',0)); os.fchown(s.fileno(),12,13)`,
      all,
      ([first]) => {
        assert.equal(first?.[0].IP_MTU_DISCOVER, '02000000');
        assert.equal(first?.[0].UDP_SEGMENT, 'e8030000');
        assert.equal(first?.[0].IP_OPTIONS, '94040000');
        assert.equal(first?.[1].soBoundDev, 'lo');
        assert.equal(first?.[1].soLinger, 9);
      },
    );
  });

  test('every option of IPv6 that is a number, and sticky headers', async () => {
    await compare(
      `s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)
for o,v in ((2,1),(3,1),(4,1),(5,1),(8,1),(11,1),(33,1),(16,9),(17,1),(18,4),(19,0),(23,2),(25,1),(26,1),(29,0),(31,1),(49,1),(51,1),(53,1),(56,1),(58,1),(60,1),(62,1),(66,1),(67,16),(70,1),(72,2),(73,5),(74,1),(75,1),(77,1),(78,1)): s.setsockopt(41,o,v)
s.setsockopt(41,76,(1).to_bytes(4,'big')); s.setsockopt(41,59,bytes((0,0,1,4,0,0,0,0)))
for o,v in ((1,8),(2,44),(8,1),(12,1)): s.setsockopt(0,o,v)
s.bind(('::1',0))
l=socket.socket(socket.AF_INET,socket.SOCK_DGRAM,136); l.setsockopt(136,10,8); l.setsockopt(136,11,12)
r=socket.socket(socket.AF_INET6,socket.SOCK_RAW,200); r.setsockopt(41,7,4)
m=socket.socket(socket.AF_INET6,socket.SOCK_RAW,58); m.setsockopt(58,1,b'\\xff'*31+b'\\x7f')
i=socket.socket(socket.AF_INET,socket.SOCK_RAW,1); i.setsockopt(255,1,b'\\x03\\0\\0\\0'); i.setsockopt(0,3,1); i.setsockopt(0,22,1)`,
      all,
      ([first, lite, raw]) => {
        assert.equal(first?.[0].IPV6_DSTOPTS, '0000010400000000');
        assert.equal(first?.[0].IPV6_MULTICAST_IF, '01000000');
        assert.equal(lite?.[0].UDPLITE_RECV_CSCOV, '0c000000');
        assert.equal(raw?.[0].IPV6_CHECKSUM, '04000000');
      },
    );
  });

  const FILTER = `import ctypes,struct
def attach(s,code,option=26):
  b=ctypes.create_string_buffer(b''.join(struct.pack('HBBI',*i) for i in code))
  s.setsockopt(1,option,struct.pack('HxxxxxxQ',len(code),ctypes.addressof(b)))
`;

  test('a classic filter, locked', async () => {
    await compare(
      `${FILTER}s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)
attach(s,[(0x20,0,0,0),(0x15,1,2,0xfedcba98),(6,0,0,0xffffffff),(6,0,0,0),(6,0,0,7)]); s.setsockopt(1,44,1)`,
      all,
      ([first]) => {
        assert.equal(first?.[1].soFilter.length, 5);
        assert.equal(first?.[1].soFilter[1], 0x0015_0102_fedc_ba98n);
        assert.equal(first?.[0].SO_LOCK_FILTER, '01000000');
      },
    );
  });

  test('an eBPF filter is refused by name', async () => {
    using program = await Program.start(
      `${QUIET}${FILTER}l=ctypes.CDLL(None,use_errno=True)
code=ctypes.create_string_buffer(struct.pack('<BBhi',0xb7,0,0,0)+struct.pack('<BBhi',0x95,0,0,0)); gpl=ctypes.create_string_buffer(b'GPL')
attr=struct.pack('<IIQQ',1,2,ctypes.addressof(code),ctypes.addressof(gpl)).ljust(128,b'\\0')
f=l.syscall(321,5,attr,128)
if f<0: raise OSError(ctypes.get_errno())
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.setsockopt(1,50,f); os.close(f)`,
    );
    assert.throws(() => save(program), /descriptor 4 .*an eBPF filter/);
  });

  test('sockets of another network namespace are refused by name', async () => {
    for (const made of [
      "socket.create_server(('127.0.0.1', 5555))",
      'socket.socket(socket.AF_INET, socket.SOCK_DGRAM)',
      'socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)',
    ]) {
      using program = await Program.start(`${QUIET}import ctypes
l=ctypes.CDLL(None); home=os.open('/proc/self/ns/net',os.O_RDONLY); l.unshare(0x40000000)
os.system('ip link set lo up'); s=${made}; l.setns(home,0x40000000); os.close(home)`);
      assert.throws(() => save(program), /it is a socket of another network namespace/);
    }
  });

  test('multicast groups with source filters', async () => {
    const code = `import struct
a=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); b=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)
g=lambda n: socket.inet_aton(n)
a.setsockopt(0,35,g('239.1.2.3')+g('127.0.0.1')); a.setsockopt(0,35,g('239.1.2.4')+g('127.0.0.1'))
a.setsockopt(0,38,g('239.1.2.4')+g('127.0.0.1')+g('10.9.8.7'))
a.setsockopt(0,39,g('232.1.1.1')+g('127.0.0.1')+g('10.1.1.1'))
b.setsockopt(41,20,socket.inet_pton(socket.AF_INET6,'ff15::77')+struct.pack('I',1))
b.setsockopt(0,35,g('239.1.2.5')+g('127.0.0.1'))
c=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)`;
    const groups = (pid: number) =>
      sockets(pid).map((fd) =>
        through(pid, fd, (taken) => {
          const family = number(taken, S.SO_DOMAIN);
          const known = [S.AF_INET, ...(family === S.AF_INET6 ? [S.AF_INET6] : [])];
          return known
            .flatMap((each) => groupsOf(taken, knownGroups(pid, each)))
            .map(({ address, mode, sources }) => `${address} ${mode} ${sources.join()}`)
            .sort();
        }),
      );
    await compare(code, groups, (seen) => {
      assert.deepEqual(
        seen.map((each) => each.filter((group) => !group.includes('e0000001')).length),
        [3, 2, 0],
      );
    });
  });

  test('sockets of other families are refused by name', async () => {
    for (const [family, type, expected] of [
      [S.AF_VSOCK, S.SOCK_STREAM, /descriptor 3 .*AF_VSOCK, SOCK_STREAM/],
      [S.AF_XDP, S.SOCK_RAW, /descriptor 3 .*AF_XDP, SOCK_RAW/],
    ] as const) {
      using program = await Program.start(`${QUIET}s=socket.socket(${family},${type},0)`);
      assert.throws(() => save(program), expected);
    }
  });

  test('tables of /proc/net', () => {
    assert.deepEqual(
      parseIgmp(
        'Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n',
      ),
      [{ device: 'lo', words: [0x0100_00e0] }],
    );
    assert.deepEqual(parseIgmp6('1    lo              ff020000000000000000000000000001     1 0000000C 0\n'), [
      { device: 'lo', words: [0x0000_02ff, 0, 0, 0x0100_0000] },
    ]);
    const raw =
      '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n' +
      '  17: 00000000:0011 0100007F:0000 01 00000000:00000000 00:00000000 00000000     0        0 4242 2 0000000000000000 0\n';
    assert.deepEqual(parsePeers(raw, S.AF_INET).get(4242), {
      family: S.AF_INET,
      port: 0,
      words: [0x0100_007f],
      scope: 0,
    });
  });
}
