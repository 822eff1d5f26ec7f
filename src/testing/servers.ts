import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readTree } from '../kernel/procfs/tree.js';
import { attempt } from '../kernel/syscall.js';
import { untilGone } from './gone.js';
import type { Subject } from './subject.js';

/** For the integration suite: servers and their clients, saved and brought back by the command line while they work. */

export const SKIP_INTEGRATION: string | false =
  process.env.STASIS_INTEGRATION === undefined ? 'run by npm run test:integration' : false;

const STASIS = fileURLToPath(new URL('../../bin/stasis', import.meta.url));

function stasis(...words: readonly string[]): string {
  try {
    return execFileSync(STASIS, words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  } catch (error) {
    const said = error instanceof Error && 'stderr' in error ? String(error.stderr) : '';
    throw new Error(`stasis ${words.join(' ')}: ${said}`, { cause: error });
  }
}

/** Clients, each of which appends a line for every write that was acknowledged to it, and prints FAIL for what is wrong. */
export interface Clients {
  /** Files with a line for each acknowledged write. */
  readonly logs: readonly string[];
  /** Clients outside of the tree. */
  readonly others?: readonly Subject[];
  /** Options of the checkpoint, and of the restore. */
  readonly checkpoint?: readonly string[];
  readonly restore?: readonly string[];
}

const ROUNDS = Number(process.env.STASIS_INTEGRATION_ROUNDS ?? 2);
/** So many writes of each client are acknowledged between two dumps. */
const STEPS = 25;

/** Dump, kill, restore, `rounds` times, with every client at work in between. */
export async function survive(subject: Subject, clients: Clients, rounds = ROUNDS): Promise<void> {
  await progress(subject, clients);
  for (let round = 1; round <= rounds; round++) {
    const directory = join(subject.directory, 'image');
    const pids = readTree(subject.pid).map(({ pid }) => pid);
    stasis('checkpoint', '--pid', String(subject.pid), '-o', directory, ...(clients.checkpoint ?? []));
    await untilGone(pids);
    stasis('restore', directory, '--detach', ...(clients.restore ?? []));
    rmSync(directory, { recursive: true });
    await progress(subject, clients);
  }
}

/** Until every client has had some more of its writes acknowledged. */
async function progress(subject: Subject, { logs, others = [] }: Clients): Promise<void> {
  const goals = logs.map((log) => acknowledged(log) + STEPS);
  const deadline = Date.now() + 120_000;
  while (logs.some((log, index) => acknowledged(log) < (goals[index] ?? 0))) {
    for (const { output } of [subject, ...others]) assert.doesNotMatch(output, /FAIL/);
    if (Date.now() > deadline)
      throw new Error(
        `no progress: ${logs.map((log) => `${log} ${acknowledged(log)}`).join(', ')}\n${subject.output}`,
      );
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** How many lines a log has. */
export function acknowledged(log: string): number {
  try {
    return readFileSync(log, 'latin1').split('\n').length - 1;
  } catch {
    return 0;
  }
}

export async function end(...subjects: readonly Subject[]): Promise<void> {
  const pids = subjects
    .filter(({ isAlive }) => isAlive)
    .flatMap(({ pid }) => readTree(pid).map(({ pid }) => pid));
  for (const pid of pids) attempt('kill', [pid, 9]);
  await untilGone(pids);
  for (const subject of subjects) subject[Symbol.dispose]();
}

/** What every Python client begins with. */
export const CLIENT = `
import os, signal, socket, struct, sys, time, traceback
def tell(*words): os.write(1, (' '.join(map(str, words)) + chr(10)).encode())
def fail(*words): tell('FAIL', *words); os._exit(1)
def exactly(s, n):
  data = b''
  while len(data) < n:
    more = s.recv(n - len(data))
    if not more: fail('the server has closed the connection')
    data += more
  return data
# Who waits for too long says for what. The server is not to starve everybody else of the processor.
signal.signal(signal.SIGALRM, lambda _, frame: fail('no answer in', ' '.join(traceback.format_stack(frame)[-3:])))
def acknowledge(log, n): os.write(log, b'%d\\n' % n); signal.alarm(PATIENCE_S); time.sleep(0.002)
PATIENCE_S = 90
def log(name): return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
def connect(where):
  for _ in range(3000):
    try:
      if where.startswith('/'): s = socket.socket(socket.AF_UNIX); s.connect(where)
      else: host, port = where.rsplit(':', 1); s = socket.create_connection((host, int(port)))
      return s
    except OSError: time.sleep(0.01)
  fail('cannot connect to', where)
`;
