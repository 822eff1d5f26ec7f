import assert from 'node:assert/strict';
import { existsSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import { ImageReader } from '../../image/index.js';
import { call } from '../../kernel/ffi.js';
import { readState } from '../../kernel/procfs/stat.js';
import { inNamespace, Program, saveAsSurveyed, surveyOf } from '../../testing/descriptors.js';

if (!inNamespace(import.meta.url)) {
  test('the survey of descriptors, in a namespace of its own', () => undefined);
} else {
  const SIGCONT = 18;

  /** What an image says of descriptors; ids are given in the order of the descriptors, so they are the same. */
  function filesOf(directory: string, pid: number): unknown {
    const reader = ImageReader.open(directory);
    const files = [...reader.read('files')].sort((a, b) => a.id - b.id);
    const pipes = [...(reader.readOptional('pipes-data') ?? [])].sort((a, b) => a.pipeId - b.pipeId);
    const locks = reader.readOptional('filelocks') ?? [];
    return { files, table: reader.read('fdinfo', pid), pipes, locks };
  }

  /** The program is surveyed before its second half, and saved after it, by what was surveyed and without. */
  async function compare(before: string, between: string, isWhole = false): Promise<void> {
    using program = await Program.start(
      `os.dup2(0,2)\np=os.pipe()\ne=[os.eventfd(n) for n in range(5)]\nf=os.open(D+'/f',os.O_RDWR|os.O_CREAT)\nk=[os.open('/etc/passwd',os.O_RDONLY) for _ in range(4)]\n` +
        `${before}\nos.kill(os.getpid(),signal.SIGSTOP)\n${between}\nopen(D+'/.done','w').close()`,
    );
    using survey = surveyOf(program);
    call('kill', program.pid, SIGCONT);
    const deadline = Date.now() + 20_000;
    while (!existsSync(`${program.directory}/.done`)) assert.ok(Date.now() < deadline, 'it does not go on');
    while (readState(program.pid, program.pid) !== 'T') assert.ok(Date.now() < deadline, 'it does not stop');
    const surveyed = filesOf(saveAsSurveyed(program, survey), program.pid);
    rmSync(`${program.directory}/.image`, { recursive: true });
    const plain = filesOf(saveAsSurveyed(program, undefined), program.pid);
    assert.deepEqual(surveyed, plain);
    const known = survey.tableOf(program.pid)?.numbers;
    if (isWhole) assert.equal([...(known ?? [])].length, 15);
  }

  const CHANGES: Readonly<Record<string, readonly [before: string, between: string]>> = {
    nothing: ['', 'pass'],
    'counters, offsets, flags': [
      '',
      `os.write(e[1],(7).to_bytes(8,'little')); os.read(k[1],10); fcntl.fcntl(k[2],fcntl.F_SETFL,os.O_NONBLOCK); os.set_inheritable(e[2],True)`,
    ],
    closed: ['', 'os.close(e[2]); os.close(k[0])'],
    opened: ['', `x=os.eventfd(9); y=os.open('/etc/passwd',os.O_RDONLY); z=os.dup(k[1]); w=os.dup(e[1])`],
    'replaced by one of the same kind': ['', `x=os.eventfd(9); os.dup2(x,e[2]); os.dup2(k[3],k[1])`],
    'replaced by another kind': ['', `os.dup2(p[0],e[2]); os.dup2(e[3],k[1]); os.dup2(f,p[0])`],
    'one closed and one opened': ['', `os.close(e[2]); x=os.dup2(k[1],90)`],
    'an epoll in place of an eventfd': ['', `q=select.epoll(); os.dup2(q.fileno(),e[2])`],
    'duplicates swapped': ['x=os.dup(k[0]); y=os.dup(k[1])', 'os.dup2(k[0],y); os.dup2(k[1],x)'],
    'a pipe is filled': ['', `os.write(p[1],b'text')`],
    'a pipe is emptied, and shrunk': [
      `os.write(p[1],b'text')`,
      'os.read(p[0],9); fcntl.fcntl(p[0],1031,4096)',
    ],
    'a deleted one has another number': [
      `t=os.open(D+'/t',os.O_RDWR|os.O_CREAT); os.unlink(D+'/t')`,
      'os.dup2(t,50); os.close(t)',
    ],
    renamed: ['', `os.rename(D+'/f',D+'/g')`],
    deleted: ['', `os.unlink(D+'/f')`],
    'replaced by name': ['', `os.rename(D+'/f',D+'/g'); open(D+'/f','w').close()`],
    locked: ['', `fcntl.flock(f,fcntl.LOCK_EX); fcntl.lockf(k[0],fcntl.LOCK_SH)`],
    'an owner': ['', `fcntl.fcntl(p[0],fcntl.F_SETOWN,os.getpid()); fcntl.fcntl(p[0],10,signal.SIGUSR1)`],
    'a signal without an owner': [
      `fcntl.fcntl(p[1],10,signal.SIGUSR2)`,
      `fcntl.fcntl(p[0],10,signal.SIGUSR1)`,
    ],
    'another mode': ['', `os.chmod(D+'/f',0o640)`],
    'a path only': ['', `x=os.open(D+'/f',os.O_PATH); os.dup2(x,f)`],
  };

  for (const [name, [before, between]] of Object.entries(CHANGES))
    test(`between the survey and the freeze: ${name}`, () => compare(before, between, name === 'nothing'));
}
