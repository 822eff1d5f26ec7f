import assert from 'node:assert/strict';
import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { dump } from '../engine/dump.js';
import { restore } from '../engine/restore.js';
import { readStat } from '../kernel/procfs/stat.js';
import { readTree } from '../kernel/procfs/tree.js';
import { attempt } from '../kernel/syscall.js';
import { CHECKPOINT, RESTORE } from '../testing/options.js';
import { Subject } from '../testing/subject.js';

/**
 * Programs that live in a terminal, from Debian's packages of their names: saved, killed, brought back, and used. Run
 * only where STASIS_INTEGRATION is set, since they have to be installed: tmux screen vim less procps bash.
 */
const SKIP = process.env.STASIS_INTEGRATION === undefined && 'STASIS_INTEGRATION is not set';

/** Has the master: what is appended to `keys` is typed, what the program shows is appended to `screen`. */
const KEEPER = `
import ctypes, fcntl, os, select, signal, struct, sys
directory, command = sys.argv[1], sys.argv[2:]
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
m, s = os.openpty()
fcntl.ioctl(s, 0x5414, struct.pack('HHHH', 24, 80, 0, 0))
if os.fork() == 0:
  os.setsid(); fcntl.ioctl(s, 0x540e, 0)
  for fd in (0, 1, 2): os.dup2(s, fd)
  os.closerange(3, 1000)
  # Whoever was started in the background ignores them.
  for sig in (signal.SIGINT, signal.SIGQUIT): signal.signal(sig, signal.SIG_DFL)
  os.environ.update(TERM='xterm', LC_ALL='C.UTF-8', HOME=directory, SHELL='/bin/bash', PS1='$ ')
  os.chdir(directory)
  os.execvp(command[0], command)
os.close(s)
keys = os.open(directory + '/keys', os.O_RDONLY)
screen = os.open(directory + '/screen', os.O_WRONLY | os.O_APPEND)
sizes = [(25, 81), (24, 80)]
def resize(*_):
  size = sizes.pop(0); sizes.append(size)
  fcntl.ioctl(m, 0x5414, struct.pack('HHHH', *size, 0, 0))
signal.signal(signal.SIGUSR1, resize)
os.write(1, b'ready\\n')
while True:
  if select.select([m], [], [], 0.02)[0]:
    try: data = os.read(m, 65536)
    except OSError: break
    os.write(screen, data)
  data = os.read(keys, 4096)
  if data: os.write(m, data)
os.write(1, b'ended\\n')
signal.pause()
`;

class Terminal implements Disposable {
  readonly #subject: Subject;
  readonly directory: string;
  #seen = 0;
  #round = 0;

  constructor(command: readonly string[], files: Readonly<Record<string, string>> = {}) {
    const maker = Subject.python('import signal; signal.pause()');
    attempt('kill', [maker.pid, 9]);
    this.directory = maker.directory;
    for (const [name, text] of Object.entries({ keys: '', screen: '', 'keeper.py': KEEPER, ...files }))
      writeFileSync(join(this.directory, name), text);
    this.#subject = Subject.start(
      ['/usr/bin/python3', join(this.directory, 'keeper.py'), this.directory, ...command],
      this.directory,
    );
  }

  type(keys: string): void {
    this.#seen = this.screen.length;
    appendFileSync(join(this.directory, 'keys'), keys);
  }

  get screen(): string {
    return readFileSync(join(this.directory, 'screen'), 'utf8');
  }

  /** Who does what, for messages. */
  get members(): string {
    return readTree(this.#subject.pid)
      .map(({ pid }) => readStat(pid))
      .map(({ pid, comm, state, pgrp, tpgid }) => `${pid} ${comm} ${state} group ${pgrp} of ${tpgid}`)
      .join('\n');
  }

  /** Something that was shown since the last keys, sizes or checkpoint. */
  async shows(pattern: RegExp, timeout_ms = 20_000): Promise<void> {
    for (const deadline = Date.now() + timeout_ms; !pattern.test(this.screen.slice(this.#seen)); ) {
      if (Date.now() > deadline)
        throw new Error(`${pattern} was not shown, but:\n${this.screen.slice(this.#seen)}\n${this.members}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** Its processes are as they should be. */
  async stands(pattern: RegExp, timeout_ms = 20_000): Promise<void> {
    for (const deadline = Date.now() + timeout_ms; !pattern.test(this.members); ) {
      if (Date.now() > deadline) throw new Error(`not ${pattern}, but:\n${this.members}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** The window has another size: full-screen programs paint it anew. */
  resize(): void {
    this.#seen = this.screen.length;
    this.#subject.signal(10);
  }

  /** Save and kill all of it, and bring it back. */
  again(): void {
    const directory = join(this.directory, `image-${this.#round++}`);
    dump({ ...CHECKPOINT, pid: this.#subject.pid, directory });
    assert.ok(!this.#subject.isAlive);
    restore({ ...RESTORE, directory });
    this.#seen = this.screen.length;
  }

  read(name: string): string {
    return readFileSync(join(this.directory, name), 'utf8');
  }

  ended(): Promise<unknown> {
    return this.#subject.expect(/ended/);
  }

  [Symbol.dispose](): void {
    try {
      for (const { pid } of readTree(this.#subject.pid)) attempt('kill', [pid, 9]);
    } catch {
      // Nobody is left.
    }
    this.#subject[Symbol.dispose]();
  }
}

const FOREGROUND_SLEEP = /sleep S group (\d+) of \1$/m;

test('bash with a stopped and a background job', { skip: SKIP }, async () => {
  using terminal = new Terminal(['bash', '--norc', '-i']);
  await terminal.shows(/[$#] $/);
  terminal.type('sleep 1000 & sleep 1001\n');
  // Only then ^Z means it: what was typed is shown long before it runs.
  await terminal.stands(FOREGROUND_SLEEP);
  terminal.type('\x1a');
  await terminal.shows(/Stopped/);
  terminal.type('half a li');
  await terminal.shows(/half a li/);
  terminal.again();
  terminal.type('\x15jobs\n');
  await terminal.shows(/Running[\s\S]*sleep 1000[\s\S]*Stopped[\s\S]*sleep 1001/);
  terminal.type('fg\n');
  await terminal.stands(FOREGROUND_SLEEP);
  terminal.again();
  terminal.type('\x03');
  await terminal.shows(/\^C/);
  terminal.type('kill %1; echo still $((40+2))\n');
  await terminal.shows(/still 42/);
  terminal.type('exit\n');
  await terminal.ended();
});

test('vim', { skip: SKIP }, async () => {
  using terminal = new Terminal(['vim', '-u', 'NONE', '-n', 'text'], { text: 'first line\n' });
  await terminal.shows(/first line/);
  terminal.type('Gosecond');
  await terminal.shows(/second/);
  terminal.again();
  terminal.resize();
  await terminal.shows(/first line[\s\S]*second/);
  terminal.type(' line\x1b');
  terminal.again();
  terminal.type(':wq\r');
  await terminal.ended();
  assert.equal(terminal.read('text'), 'first line\nsecond line\n');
});

test('less', { skip: SKIP }, async () => {
  const text = Array.from({ length: 500 }, (_, line) => `line ${line + 1} of it\n`).join('');
  using terminal = new Terminal(['less', 'text'], { text });
  await terminal.shows(/line 23 of it/);
  terminal.again();
  terminal.type(' ');
  await terminal.shows(/line 46 of it/);
  terminal.again();
  terminal.resize();
  await terminal.shows(/line 24 of it[\s\S]*line 40 of it/);
  terminal.type('q');
  await terminal.ended();
});

test('top', { skip: SKIP }, async () => {
  using terminal = new Terminal(['top', '-d', '1']);
  await terminal.shows(/load average[\s\S]*PID USER/);
  terminal.again();
  terminal.resize();
  await terminal.shows(/load average[\s\S]*PID USER/);
  terminal.type('q');
  await terminal.ended();
});

test('tmux, server and client', { skip: SKIP }, async () => {
  using terminal = new Terminal(['tmux', '-S', './socket', '-f', '/dev/null', 'new-session', 'bash --norc']);
  await terminal.shows(/[$#] /);
  terminal.type('echo before-$((40+1))\n');
  await terminal.shows(/before-41/);
  terminal.again();
  terminal.type('echo after-$((40+2))\n');
  await terminal.shows(/after-42/);
  terminal.again();
  terminal.resize();
  await terminal.shows(/before-41[\s\S]*after-42/);
  terminal.type('exit\n');
  await terminal.ended();
});

test('screen', { skip: SKIP }, async () => {
  using terminal = new Terminal(['screen', '-c', '/dev/null', 'bash', '--norc']);
  await terminal.shows(/[$#] /);
  terminal.type('echo before-$((40+1))\n');
  await terminal.shows(/before-41/);
  terminal.again();
  terminal.type('echo after-$((40+2))\n');
  await terminal.shows(/after-42/);
  terminal.again();
  terminal.type('exit\n');
  await terminal.ended();
});
