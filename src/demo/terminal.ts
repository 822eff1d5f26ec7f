import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { appendFileSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { check, checkpoint, createEngine, restore } from '../library/api.js';
import { heading, mib, note, verdict } from './page.js';
import { DisprovedError } from './witness.js';

/**
 * A terminal program: it has a pseudo-terminal, a shell on it with jobs, and shows in a file what the shell writes. What is
 * appended to another file it types.
 */
const TERMINAL = `
import os, pty, sys, time, select
keys, screen = os.open(sys.argv[1], os.O_RDONLY), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
pid, master = pty.fork()
if pid == 0:
    os.environ.update(PS1="$ ", TERM="dumb", HISTFILE="")
    os.execvp("bash", ["bash", "--norc", "--noprofile", "--noediting"])
while True:
    typed = os.read(keys, 4096)
    if typed: os.write(master, typed)
    if select.select([master], [], [], 0.01)[0]:
        try: shown = os.read(master, 4096)
        except OSError: sys.exit(0)
        os.write(screen, shown)
`;
const CTRL_Z = '\u001a';
const CTRL_C = '\u0003';
const PATIENCE_MS = 30_000;

class Terminal {
  readonly #keys: string;
  readonly #screen: string;
  readonly pid: number;
  readonly ended: Promise<void>;

  constructor(directory: string, python: string) {
    this.#keys = join(directory, 'keys');
    this.#screen = join(directory, 'screen');
    for (const file of [this.#keys, this.#screen]) writeFileSync(file, '', { mode: 0o600 });
    const child = spawn(python, ['-c', TERMINAL, this.#keys, this.#screen], {
      detached: true,
      cwd: '/',
      stdio: ['ignore', 'ignore', 'ignore'],
    });
    this.pid = child.pid ?? 0;
    this.ended = new Promise((resolve) => child.once('exit', () => resolve()));
  }

  /** Type, and wait until the screen shows it; answers what was shown since. */
  async type(keys: string, shows: RegExp): Promise<string> {
    const from = statSync(this.#screen).size;
    appendFileSync(this.#keys, keys);
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      const shown = readFileSync(this.#screen).subarray(from).toString().replaceAll('\r', '');
      if (shows.test(shown)) return shown;
      if (performance.now() > deadline)
        throw new DisprovedError(
          `${JSON.stringify(keys)} was typed, and the screen showed ${JSON.stringify(shown)}`,
        );
      await pause(5);
    }
  }
}

/** Answers what was left out, if anything. */
export async function showTerminal(directory: string, python: string): Promise<void> {
  heading('A terminal is put into a file, and brought back');
  await using engine = createEngine();
  const terminal = new Terminal(directory, python);
  const secret = randomBytes(8).toString('hex');
  await terminal.type(`stty -echo rows 31 cols 97; secret=${secret}; echo set $((6*7))\n`, /set 42\n/);
  await terminal.type('sleep 100001 &\n', /\[1\] \d+\n/);
  await terminal.type(`${JOB}\n`, /started\n/);
  await terminal.type(CTRL_Z, /\[2\]\+ +Stopped/);
  const before = settled(await terminal.type(QUESTION, /end\n/));
  note('a shell with a job in the background, a stopped one, and a variable that nobody else knows');
  const { refusals } = await check({ pid: terminal.pid, engine });
  if (refusals?.length !== 0) {
    process.kill(terminal.pid, 'SIGKILL');
    note(`left out: ${refusals?.map(({ object, reason }) => `${object}: ${reason}`).join('; ')}`);
    return;
  }
  const file = join(directory, 'terminal.stasis');
  const saved = await checkpoint({ pid: terminal.pid, to: file, engine });
  await terminal.ended;
  verdict(
    true,
    `${saved.processes} processes went into one file of ${mib(statSync(file).size)}, and are gone`,
  );
  const restored = await restore({ from: file, engine });
  const after = settled(await terminal.type(QUESTION, /end\n/));
  if (after !== before)
    throw new DisprovedError(`the shell said ${JSON.stringify(before)}, and now ${JSON.stringify(after)}`);
  if (!after.includes(secret)) throw new DisprovedError('the shell does not know its variable any more');
  verdict(true, `the shell answers as before: its terminal, size, jobs and variable`);
  await terminal.type('fg %2\n', /sleep 100002/);
  await terminal.type(CTRL_C, /\$ $/);
  verdict(true, 'the stopped job came to the foreground, and Ctrl-C ended it');
  await terminal.type('kill %1; wait; exit\n', /exit\n/);
  const exit = await restored.exit;
  if (exit?.kind !== 'exited' || exit.status !== 0)
    throw new DisprovedError(`the terminal ended with ${JSON.stringify(exit)}`);
}

/** Without what a shell says by itself of a child that stops: it hears of that again, for the child is stopped anew. */
function settled(shown: string): string {
  return shown
    .split('\n')
    .filter((line) => line !== '' && line !== '$ ' && !/^\[\d+\][+-]? +Stopped /.test(line))
    .join('\n');
}

const JOB = 'sh -c "echo started; exec sleep 100002"';
const QUESTION = 'tty; stty size; jobs -l; echo $secret; echo end\n';
