import assert from 'node:assert/strict';
import { mkdirSync, statSync } from 'node:fs';
import path from 'node:path';
import test from 'node:test';
import * as S from '../../abi/socket.js';
import { ImageReader } from '../../image/index.js';
import { NativeMemory, scratch } from '../../kernel/memory.js';
import { attempt } from '../../kernel/syscall.js';
import { inNamespace, Program, QUIET, Restored, save, tableOf, treeOf } from '../../testing/descriptors.js';
import type { DumpOptions, RestoreOptions } from '../contract.js';
import { openPidfd, takeDescriptor } from '../description/calls.js';
import { closeAll, peek } from './unix-peek.js';

/**
 * Each program's sockets are saved, the program ends, they are rebuilt in stems and saved once more: both images have to
 * say the same. That the second one is right is what the single questions are for.
 */
interface Portrait {
  readonly sockets: readonly unknown[];
  readonly queues: readonly unknown[];
  readonly extras: unknown;
}

function portrait(directory: string): Portrait {
  using reader = ImageReader.open(directory);
  const all = reader.read('files').flatMap(({ usk }) => usk ?? []);
  const idOf = (inode: number) => all.find(({ ino }) => ino === inode)?.id ?? inode;
  const sockets = all.map(({ ino, peer, $typeName: _, opts, ...entry }) => ({
    ...entry,
    peer: idOf(peer),
    name: Buffer.from(entry.name).toString('latin1'),
    // The holder forces what the kernel had chosen; a buffer is as large as it was.
    opts: { ...opts, soBufLock: 0, soFilter: [] },
    fown: { ...entry.fown },
    // Where it was bound shows in the link of the file, which is a passing one now.
    nameDir: entry.deleted ? '' : entry.nameDir,
    filePerms: { ...entry.filePerms },
  }));
  const queues = (reader.recordsOptional('sk-queues') ?? []).map(({ message, raw }) => ({
    id: message.idFor,
    bytes: Buffer.from(raw[0] ?? []).toString('latin1'),
    rights: message.scm.map(({ rights }) => rights),
  }));
  const own = reader.bytes('stasis-unix.json');
  return { sockets, queues, extras: own === undefined ? undefined : JSON.parse(Buffer.from(own).toString()) };
}

interface Case {
  readonly code: string;
  readonly dump?: Partial<DumpOptions>;
  readonly restore?: Partial<RestoreOptions>;
  readonly check?: (tid: number, first: Portrait, program: Program) => void | Promise<void>;
}

/** Every process of the program, dead and collected: its pids and addresses are free. */
async function ended(program: Program): Promise<void> {
  program.end();
  for (const { pid } of program.processes)
    while (attempt('kill', [pid, 0]) === 0) await new Promise((resolve) => setTimeout(resolve, 2));
}

async function again({ code, dump, restore, check }: Case): Promise<void> {
  using program = await Program.start(QUIET + code);
  const { pid, directory } = program;
  const image = save(program, dump);
  const before = tableOf(pid);
  const first = portrait(image);
  await ended(program);
  const restored = new Restored(image, [pid], restore);
  try {
    const { tid } = restored.of(pid);
    assert.deepEqual(tableOf(tid), before);
    const second = path.join(directory, '.second');
    mkdirSync(second);
    const processes = treeOf(tid);
    assert.deepEqual(
      withoutWaiting(portrait(save({ processes, directory: second }, dump))),
      withoutWaiting(first),
    );
    await check?.(tid, first, program);
  } finally {
    restored.end();
    restored.holder[Symbol.dispose]();
  }
}

/** Who waits to be accepted would be told to be its owner by now, which is a stem. */
function withoutWaiting({ sockets, queues, extras }: Portrait): Portrait {
  return {
    sockets,
    queues,
    extras: JSON.parse(JSON.stringify(extras ?? {}, (key, value) => (key === 'self' ? undefined : value))),
  };
}

function taken<T>(tid: number, fd: number, look: (fd: number) => T): T {
  using pidfd = openPidfd(tid);
  using duplicate = takeDescriptor(pidfd.fd, fd, 'test');
  return look(duplicate.fd);
}

/** One packet, left where it is. */
function received(tid: number, fd: number): { text: string; rights: number; from: string | undefined } {
  return taken(tid, fd, (own) => {
    using memory = new NativeMemory(1 << 20);
    const found = peek(own, memory, memory.length);
    if (found === 'empty') return { text: '', rights: 0, from: undefined };
    closeAll(found.rights);
    return {
      text: Buffer.from(memory.bytes.slice(0, found.length)).toString(),
      rights: found.rights.length,
      from: found.from === undefined ? undefined : Buffer.from(found.from).toString('latin1'),
    };
  });
}

function peerPid(tid: number, fd: number): number {
  return taken(tid, fd, (own) => {
    scratch.view.setUint32(16, 12, true);
    attempt('getsockopt', [own, S.SOL_SOCKET, S.SO_PEERCRED, scratch.address, scratch.address + 16n]);
    return scratch.view.getInt32(0, true);
  });
}

async function refused(code: string, reason: RegExp, changed: Partial<DumpOptions> = {}): Promise<void> {
  using program = await Program.start(QUIET + code);
  assert.throws(() => save(program, changed), reason);
}

if (inNamespace(import.meta.url)) {
  test('stream pairs with queued bytes both ways', () =>
    again({
      code: `a,b=socket.socketpair(); a.send(b'to b'); b.send(b'to a'); a.setblocking(False); a.setsockopt(1,7,9000)`,
      check: (tid) => {
        assert.equal(received(tid, 3).text, 'to a');
        assert.equal(received(tid, 4).text, 'to b');
      },
    }));

  test('packets keep their bounds, empty ones too', () =>
    again({
      code: `for t in (socket.SOCK_SEQPACKET,socket.SOCK_DGRAM):
  a,b=socket.socketpair(socket.AF_UNIX,t)
  for p in (b'one',b'',b'second',b''): a.send(p)
  a.detach(); b.detach()`,
      check: (_tid, { queues }) => assert.equal(queues.length, 8),
    }));

  test('closed peers, with something unread, with names; halves that are shut down', () =>
    again({
      code: `a,b=socket.socketpair(); a.send(b'last words'); a.close()
c,d=socket.socketpair(); c.shutdown(socket.SHUT_WR)
e,f=socket.socketpair(socket.AF_UNIX,socket.SOCK_SEQPACKET); e.send(b'x'); e.shutdown(socket.SHUT_RDWR)
g,h=socket.socketpair(); g.send(b"unread"); h.close(); p,q=socket.socketpair(socket.AF_UNIX,socket.SOCK_DGRAM); p.send(b"u"); __import__("ctypes").CDLL(None).connect(q.fileno(),b"\\0\\0",2)
i,j=socket.socketpair(socket.AF_UNIX,socket.SOCK_DGRAM); j.send(b'm'); j.close()
l=socket.socket(socket.AF_UNIX); l.bind('l'); l.listen(); k=socket.socket(socket.AF_UNIX); k.connect('l')
m,_=l.accept(); n=socket.socket(socket.AF_UNIX); n.bind('n'); n.connect('l'); o,_=l.accept(); m.close(); n.close()`,
      check: (tid, { extras }) => {
        assert.equal(received(tid, 4).text, 'last words');
        assert.match(JSON.stringify(extras), /"hasError":true/);
        assert.match(JSON.stringify(extras), /"peerName":"l\\u0000"/);
      },
    }));

  test('listening, accepted, waiting to be accepted; path, relative, abstract', () =>
    again({
      code: `keep=[]
for name in (D+'/path','relative','\\0abstract\\0name','./x/../winding'):
  if name[0]=='.': os.mkdir('x')
  l=socket.socket(socket.AF_UNIX); l.bind(name); l.listen(7); keep.append(l)
  for i in range(2):
    c=socket.socket(socket.AF_UNIX); c.connect(name); s,_=l.accept(); c.send(b'to server'); s.send(b'to client'); keep+=[c,s]
  for i in range(3):
    c=socket.socket(socket.AF_UNIX); c.connect(name); keep.append(c)
os.chmod('path',0o640); os.chown('path',1234,5678)`,
      check: (_tid, { extras }) => assert.match(JSON.stringify(extras), /"waiting":\[\d+,\d+,\d+\]/),
    }));

  test('addresses that are no files any more, were renamed, or shared', () =>
    again({
      code: `keep=[]
os.mkdir('gone')
for name in (D+'/gone/s','gone/r'):
  l=socket.socket(socket.AF_UNIX); l.bind(name); l.listen(); c=socket.socket(socket.AF_UNIX); c.connect(name); s,_=l.accept(); keep+=[l,c,s]
  os.unlink(name)
os.rmdir('gone')
a=socket.socket(socket.AF_UNIX); a.bind(D+'/a.tmp'); a.listen(); os.rename('a.tmp','a')
b=socket.socket(socket.AF_UNIX); b.bind(D+'/a.tmp'); b.listen(); os.unlink('a.tmp'); os.mkfifo('a.tmp')
c=socket.socket(socket.AF_UNIX); c.bind('orphan'); c.listen(); d=socket.socket(socket.AF_UNIX); d.connect('orphan'); e,_=c.accept(); c.close()`,
      check: (_tid, { extras }) => assert.match(JSON.stringify(extras), /"movedTo":"[^"]*\/a"/),
    }));

  test('datagrams: peers of every kind, senders and their addresses', () =>
    again({
      code: `D=socket.SOCK_DGRAM
def s(name=None):
  x=socket.socket(socket.AF_UNIX,D)
  if name: x.bind(name)
  return x
server,client,anon,stranger=s('server'),s('\\0client'),s(),s('stranger')
client.sendto(b'from client','server'); anon.sendto(b'from nobody','server'); stranger.sendto(b'from a stranger','server'); stranger.close()
client.connect('server'); client.send(b'connected'); server.connect('\\0client'); client.send(b'as a peer')
self=s('self'); self.connect('self'); self.send(b'to me')
chain=[s('chain%d'%i) for i in range(3)]
for i in range(5): s().sendto(b'more','chain0')
chain[0].connect('chain1'); chain[1].connect('chain2')
a,b=socket.socketpair(socket.AF_UNIX,D); a.bind('half')
libc=__import__('ctypes').CDLL(None); libc.connect(b.fileno(),b'\\0\\0',2); a.send(b'into the half')
left=s(); gone=s('gone'); left.connect('gone'); gone.close()`,
      check: (tid, { queues }) => {
        assert.equal(received(tid, 3).from, '\0client');
        assert.equal(queues.length, 5 + 1 + 1 + 5);
      },
    }));

  test('descriptors in flight: pipes, sockets in sockets, cycles, an epoll; at their byte of a stream', () =>
    again({
      code: `r,w=os.pipe(); os.write(w,b'in the pipe')
a,b=socket.socketpair(); a.send(b'before'); socket.send_fds(a,[b'with'],[r,w]); a.send(b'after'); socket.send_fds(a,[b'z'],[r])
os.close(r); os.close(w)
c,d=socket.socketpair(socket.AF_UNIX,socket.SOCK_DGRAM); socket.send_fds(c,[b'me'],[d.fileno(),c.fileno()])
e,f=socket.socketpair(socket.AF_UNIX,socket.SOCK_SEQPACKET); g,h=socket.socketpair(); h.send(b'deep')
socket.send_fds(h,[b'x'],[e.fileno()]); socket.send_fds(e,[b'y'],[g.fileno()]); e.close(); g.close()
p=select.epoll(); p.register(d,1); socket.send_fds(c,[b'epoll'],[p.fileno()]); p.close()
t=open('file','w+'); t.write('content'); t.flush(); socket.send_fds(c,[b'file'],[t.fileno()]); t.close()`,
      check: (tid, { queues }) => {
        const texts = queues.map((queue) => (queue as { bytes: string }).bytes);
        const stream = texts.filter((text) => ['before', 'with', 'after', 'z'].includes(text));
        assert.deepEqual(stream, ['before', 'with', 'after', 'z']);
        assert.equal(received(tid, 6).rights, 2);
      },
    }));

  test('credentials in flight, peek offsets, SO_PASSCRED', () =>
    again({
      code: `import struct
a,b=socket.socketpair(socket.AF_UNIX,socket.SOCK_DGRAM); b.setsockopt(1,16,1); b.setsockopt(1,42,3); b.setsockopt(1,76,1); b.setsockopt(1,83,0)
a.send(b'mine'); a.sendmsg([b'other'],[(1,2,struct.pack('iII',os.getpid(),1000,1001))])
r,w=os.pipe()
if os.fork()==0:
  a.send(b'child'); os._exit(0)
os.wait()
c,d=socket.socketpair(); c.sendmsg([b'as one'],[(1,2,struct.pack('iII',os.getpid(),5,6))]); c.sendmsg([b'as another'],[(1,2,struct.pack('iII',os.getpid(),7,8))])`,
      check: (tid, { extras }) => {
        const text = JSON.stringify(extras);
        assert.match(text, /"sender":\[\d+,1000,1001\]/);
        assert.match(text, /"sender":\[\d+,5,6\].*"sender":\[\d+,7,8\]/);
        assert.match(text, /"peekOffset":3/);
        const passesRights = taken(tid, 4, (own) => {
          scratch.view.setUint32(8, 4, true);
          attempt('getsockopt', [own, S.SOL_SOCKET, S.SO_PASSRIGHTS, scratch.address, scratch.address + 8n]);
          return scratch.view.getInt32(0, true);
        });
        assert.equal(passesRights, 0);
      },
    }));

  test('who the peer is', () =>
    again({
      code: `l=socket.socket(socket.AF_UNIX); l.bind('l'); l.listen(); os.chmod('l',0o777); os.chmod('.',0o755)
r,w=os.pipe()
if os.fork()==0:
  os.setgroups([7,8]); os.setgid(300); os.setuid(200); c=socket.socket(socket.AF_UNIX); c.connect('l')
  os.write(w,b'x'); os._exit(0)
os.read(r,1); s,_=l.accept(); os.wait(); a,b=socket.socketpair()`,
      check: (tid, { extras }, { pid }) => {
        assert.match(JSON.stringify(extras), /"uid":200,"gid":300,"groups":\[7,8\]/);
        assert.notEqual(peerPid(tid, 6), pid);
        assert.equal(peerPid(tid, 7), pid);
      },
    }));

  test('never connected: bound or not, then free to listen and connect', () =>
    again({
      code: `keep=[]
for t in (socket.SOCK_STREAM,socket.SOCK_SEQPACKET,socket.SOCK_DGRAM):
  for n in (None,'name%d'%t,'\\0name%d'%t):
    s=socket.socket(socket.AF_UNIX,t); keep.append(s)
    if n: s.bind(n)`,
    }));

  test('a server outside of the tree', async () => {
    using server = await Program.start(
      `${QUIET}s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM); s.bind('\\0outside'); t=socket.socket(socket.AF_UNIX); t.bind('\\0stream'); t.listen()`,
    );
    assert.ok(server.pid > 0);
    const client = `c=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM); c.connect('\\0outside')`;
    const connected = `c=socket.socket(socket.AF_UNIX); c.connect('\\0stream')`;
    await refused(client, /connected to a socket outside of the tree \(@outside\)/);
    await refused(connected, /waits to be accepted by a socket outside of the tree \(@stream\)/);
    await again({ code: client, dump: { extUnixSk: true }, restore: { extUnixSk: true } });
    await assert.rejects(again({ code: client, dump: { extUnixSk: true } }), /allow that by --ext-unix-sk/);
  });

  test('a name that somebody listens on is not taken away', async () => {
    using program = await Program.start(
      `${QUIET}l=socket.socket(socket.AF_UNIX); l.bind(D + '/here'); l.listen()`,
    );
    const directory = save(program);
    const file = path.join(program.directory, 'here');
    const { ino } = statSync(file);
    assert.throws(() => new Restored(directory, [program.pid]), /bind\(.*EADDRINUSE/s);
    assert.equal(statSync(file).ino, ino);
  });

  test('what cannot be read is refused', async () => {
    const listening = `l=socket.socket(socket.AF_UNIX); l.bind('l'); l.listen(); c=socket.socket(socket.AF_UNIX); c.connect('l')`;
    await refused(`${listening}; c.send(b'x')`, /has sent data and is not accepted yet/);
    await refused(`${listening}; c.close()`, /whose other end was closed/);
    await refused(`a,b=socket.socketpair(); a.send(b'x',1)`, /out-of-band/);
    await refused(
      `a,b=socket.socketpair(); f=open('f','w'); fcntl.flock(f,fcntl.LOCK_EX); socket.send_fds(a,[b'x'],[f.fileno()]); f.close()`,
      /descriptor in flight .* holds locks/,
    );
  });
}
