import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { inNamespace, roundTrip, sameDescription } from '../../testing/descriptors.js';

if (inNamespace(import.meta.url)) {
  test('numbers with gaps, duplicates, close-on-exec, flags and offsets', async () => {
    await roundTrip(
      `f=os.open(D+'/f',os.O_RDWR|os.O_CREAT,0o640); os.write(f,b'hello'); os.lseek(f,3,0)
os.dup2(f,100); os.dup2(f,1000,False); os.set_inheritable(f,True)
os.dup2(os.open(D+'/f',os.O_WRONLY|os.O_APPEND|os.O_NONBLOCK),500)
os.open(D,os.O_RDONLY|os.O_DIRECTORY); os.open(D+'/f',os.O_PATH); os.open('/dev/zero',os.O_RDONLY)`,
      ({ pid }, restored) => {
        const task = restored.of(pid).tid;
        assert.ok(sameDescription({ pid: task, fd: 100 }, { pid: task, fd: 1000 }));
        assert.ok(!sameDescription({ pid: task, fd: 100 }, { pid: task, fd: 500 }));
      },
    );
  });

  test('an empty table, and one that begins late', async () => {
    await roundTrip('os.closerange(0,100)');
    await roundTrip('f=os.open(D,os.O_RDONLY); os.dup2(f,5); os.closerange(0,5)');
  });

  test('descriptions shared by processes', async () => {
    await roundTrip(
      `f=os.open(D+'/f',os.O_RDWR|os.O_CREAT,0o640)
g=os.open(D+'/f',os.O_RDWR)
if os.fork()==0: signal.pause()`,
      ({ processes: [parent, child] }, restored) => {
        const a = restored.of(parent?.pid ?? 0).tid;
        const b = restored.of(child?.pid ?? 0).tid;
        assert.ok(sameDescription({ pid: a, fd: 3 }, { pid: b, fd: 3 }));
        assert.ok(!sameDescription({ pid: a, fd: 3 }, { pid: b, fd: 4 }));
      },
    );
  });

  test('directories and umask', async () => {
    await roundTrip(`os.mkdir(D+'/w'); os.chdir(D+'/w'); os.umask(0o027)`, ({ pid }, restored) => {
      const { tid } = restored.of(pid);
      assert.match(readFileSync(`/proc/${tid}/status`, 'utf8'), /Umask:\t0027/);
    });
  });
}
