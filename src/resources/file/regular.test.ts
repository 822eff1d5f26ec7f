import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, fstatSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import test from 'node:test';
import { inNamespace, readThrough, roundTrip } from '../../testing/descriptors.js';
import { openPidfd, takeDescriptor } from '../description/calls.js';

if (inNamespace(import.meta.url)) {
  const statOf = (pid: number, fd: number) => {
    using pidfd = openPidfd(pid);
    using taken = takeDescriptor(pidfd.fd, fd, 'test');
    return fstatSync(taken.fd);
  };

  test('a deleted file comes back with contents, owner, mode, times, and no name', async () => {
    await roundTrip(
      `f=os.open(D+'/gone',os.O_RDWR|os.O_CREAT,0o600); os.write(f,b'contents'); os.lseek(f,2,0)
os.fchown(f,12,34); os.fchmod(f,0o4751); os.utime(f,(1000,2000)); g=os.open(D+'/gone',os.O_WRONLY|os.O_APPEND)
os.unlink(D+'/gone')`,
      ({ pid, directory }, restored) => {
        const { tid } = restored.of(pid);
        const stat = statOf(tid, 3);
        assert.equal(stat.nlink, 0);
        assert.equal(stat.mode & 0o7777, 0o4751);
        assert.deepEqual([stat.uid, stat.gid, stat.mtimeMs], [12, 34, 2_000_000]);
        assert.equal(stat.ino, statOf(tid, 4).ino);
        assert.equal(readThrough(tid, 3).toString(), 'ntents');
        assert.ok(!existsSync(`${directory}/gone`));
      },
    );
  });

  test('a deleted file with holes', async () => {
    await roundTrip(
      `f=os.open(D+'/gone',os.O_RDWR|os.O_CREAT,0o600); os.pwrite(f,b'in the middle',1<<20); os.ftruncate(f,1<<30); os.unlink(D+'/gone')`,
      ({ pid }, restored) => {
        const stat = statOf(restored.of(pid).tid, 3);
        assert.equal(stat.size, 1 << 30);
        assert.ok(stat.blocks < 1000);
      },
    );
  });

  test('a name taken by another file, and one that only looks deleted', async () => {
    await roundTrip(
      `f=os.open(D+'/x (deleted)',os.O_RDWR|os.O_CREAT); g=os.open(D+'/sub\\udcff',os.O_RDWR|os.O_CREAT)
os.mkdir(D+'/d'); h=os.open(D+'/d/e',os.O_RDWR|os.O_CREAT); os.write(h,b'deep'); os.lseek(h,0,0); os.unlink(D+'/d/e'); os.rmdir(D+'/d')`,
      ({ pid, directory }, restored) => {
        assert.equal(readThrough(restored.of(pid).tid, 5).toString(), 'deep');
        assert.ok(!existsSync(`${directory}/d`));
      },
    );
  });

  test('a removed directory', async () => {
    await roundTrip(
      `os.mkdir(D+'/d',0o711); f=os.open(D+'/d',os.O_RDONLY|os.O_DIRECTORY); os.chdir(D+'/d'); os.rmdir(D+'/d')`,
      ({ pid, directory }, restored) => {
        const { tid } = restored.of(pid);
        assert.equal(statOf(tid, 3).mode & 0o777, 0o711);
        assert.equal(statOf(tid, 3).ino, statSync(`/proc/${tid}/cwd`).ino);
        assert.ok(!existsSync(`${directory}/d`));
      },
    );
  });

  test('a removed device, FIFO and symbolic link', async () => {
    await roundTrip(
      `os.mknod(D+'/n',0o20666,os.makedev(1,3)); os.open(D+'/n',os.O_RDWR); os.unlink(D+'/n')
os.mkfifo(D+'/p',0o620); p=os.open(D+'/p',os.O_RDWR); q=os.open(D+'/p',os.O_WRONLY|os.O_NONBLOCK); os.write(p,b'abc'); os.unlink(D+'/p')
os.symlink('target',D+'/s'); os.open(D+'/s',os.O_PATH|os.O_NOFOLLOW)`,
      ({ pid }, restored) => {
        const { tid } = restored.of(pid);
        assert.equal(statOf(tid, 3).rdev, 0x103);
        assert.equal(readThrough(tid, 4).toString(), 'abc');
      },
    );
  });

  test('a file with another name gets a temporary one', async () => {
    await roundTrip(
      `f=os.open(D+'/a',os.O_RDWR|os.O_CREAT); os.write(f,b'kept'); os.link(D+'/a',D+'/b'); os.unlink(D+'/a')`,
      ({ pid, directory }, restored) => {
        const { tid } = restored.of(pid);
        assert.equal(statOf(tid, 3).nlink, 1);
        assert.equal(statOf(tid, 3).ino, statSync(`${directory}/b`).ino);
      },
    );
  });

  test('an unnamed file (O_TMPFILE) can still be given a name', async () => {
    await roundTrip(
      `f=os.open(D,os.O_TMPFILE|os.O_RDWR,0o600); os.write(f,b'later')`,
      ({ pid, directory }, restored) => {
        execFileSync('ln', ['-L', `/proc/${restored.of(pid).tid}/fd/3`, `${directory}/named`]);
        assert.equal(readFileSync(`${directory}/named`, 'utf8'), 'later');
      },
    );
  });

  test('a changed file is refused', async () => {
    await assert.rejects(
      roundTrip(
        `f=os.open(D+'/f',os.O_RDWR|os.O_CREAT)`,
        () => {},
        ({ directory }) => writeFileSync(`${directory}/f`, 'more'),
      ),
      /\/f has 4 bytes, in the image it has 0/,
    );
  });
}
