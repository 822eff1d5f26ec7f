import assert from 'node:assert/strict';
import { closeSync, openSync, unlinkSync, writeFileSync } from 'node:fs';
import test from 'node:test';
import { readFdinfo } from '../../kernel/procfs/fdinfo.js';
import { inNamespace, Program, QUIET, readThrough, roundTrip, save } from '../../testing/descriptors.js';

if (inNamespace(import.meta.url)) {
  const LIBC = `import ctypes
libc=ctypes.CDLL(None,use_errno=True)
def ok(r):
  assert r>=0, os.strerror(ctypes.get_errno())
  return r
watch=lambda i,p,m: ok(libc.inotify_add_watch(i,p.encode(),ctypes.c_uint32(m)))
mark=lambda f,how,m,p: ok(libc.fanotify_mark(f,how,ctypes.c_uint64(m),-100,p.encode()))
`;
  const watches = (pid: number, fd: number) =>
    readFdinfo(pid, fd).inotify.map(({ wd, ino, mask }) => `${wd} ${ino} ${mask.toString(16)}`);

  test('inotify: ids with gaps, events, oneshot, and what happens afterwards is told', async () => {
    await roundTrip(
      `${LIBC}os.mkdir('d'); open('f','w').close()
i=ok(libc.inotify_init1(0o4000))
for p in 'd','f': watch(i,p,0x100)
gone=[]
for n in range(5):
  open('x%d'%n,'w').close(); gone.append(watch(i,'x%d'%n,0x80000002))
for w in gone[:3]: libc.inotify_rm_watch(i,w)
os.read(i,4096)`,
      ({ pid, directory }, restored) => {
        const { tid } = restored.of(pid);
        assert.equal(watches(tid, 3).length, 4);
        assert.deepEqual(watches(tid, 3), watches(pid, 3));
        assert.throws(() => readThrough(tid, 3), /EAGAIN/);
        writeFileSync(`${directory}/d/new`, '');
        const event = readThrough(tid, 3);
        assert.deepEqual([event.readInt32LE(0), event.readUInt32LE(4)], [1, 0x100]);
      },
    );
  });

  test('inotify: a deleted file that is open, and a directory the dump itself goes through', async () => {
    await roundTrip(
      `${LIBC}f=os.open('f',os.O_RDWR|os.O_CREAT); i=ok(libc.inotify_init1(0o4000))
watch(i,'f',0x8); watch(i,'/dev/shm',0x38); watch(i,D,0x400); os.unlink('f')
try: os.read(i,4096)
except BlockingIOError: pass`,
      ({ pid }, restored) => {
        const { tid } = restored.of(pid);
        assert.equal(readFdinfo(tid, 4).inotify.length, 3);
        assert.deepEqual(
          readFdinfo(tid, 4).inotify.map(({ wd, mask }) => [wd, mask]),
          readFdinfo(pid, 4).inotify.map(({ wd, mask }) => [wd, mask]),
        );
        const ghost = readFdinfo(tid, 4).inotify.find(({ wd }) => wd === 1);
        assert.equal(ghost?.ino, readFdinfo(tid, 3).ino);
      },
    );
  });

  test('unread events: tried again, or dropped as criu does', async () => {
    using program = await Program.start(
      `${QUIET}${LIBC}open('f','w').close(); i=ok(libc.inotify_init1(0o4000)); watch(i,'f',0x20); open('f').close()`,
    );
    assert.throws(() => save(program), /descriptor 3 \(anon_inode:.*bytes of events that were not read/);
    save(program, { dropEvents: true });
  });

  test('fanotify: flags and marks of inodes, mounts and file systems', async () => {
    await roundTrip(
      `${LIBC}open('f','w').close()
n=ok(libc.fanotify_init(0x12,0o100000)); mark(n,1,0x3b,'f'); mark(n,0x21,0x2,'f')
m=ok(libc.fanotify_init(0x202,0)); mark(m,0x101,0x40000100,'/dev/shm')
k=ok(libc.fanotify_init(0x2,0)); mark(k,0x11,0x8,'/dev/shm'); mark(k,0x71,0x3,'/dev/shm')`,
      ({ pid, directory }, restored) => {
        const { tid } = restored.of(pid);
        const state = (of: number, fd: number) => {
          const { fanotifyGroup, fanotify } = readFdinfo(of, fd);
          return { fanotifyGroup, fanotify };
        };
        for (const fd of [3, 4, 5]) {
          assert.notEqual(state(pid, fd).fanotify.length, 0);
          assert.deepEqual(state(tid, fd), state(pid, fd));
        }
        closeSync(openSync(`${directory}/f`, 'r'));
        assert.notEqual(readThrough(tid, 3).length, 0);
      },
    );
  });

  test('fanotify: a group that is asked for permission, and a mark of a mount namespace, are refused', async () => {
    using program = await Program.start(
      `${QUIET}${LIBC}open('f','w').close(); n=ok(libc.fanotify_init(0x6,0)); mark(n,1,0x10000,'f')`,
    );
    assert.throws(() => save(program), /descriptor 3 \(anon_inode:\[fanotify\]\).*permission events/);
  });

  test('a watched file that is gone at the restore is named', async () => {
    await assert.rejects(
      roundTrip(
        `${LIBC}open('f','w').close(); i=ok(libc.inotify_init1(0)); watch(i,'f',2)`,
        undefined,
        ({ directory }) => unlinkSync(`${directory}/f`),
      ),
      /\/f is missing, which the image watches/,
    );
  });
}
