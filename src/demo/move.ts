import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { CheckpointResult, RestoreResult } from '../library/results.js';
import { Client } from './clients.js';
import { Host, makeBridge, SERVICE_ADDRESS } from './host.js';
import { bars, heading, mib, ms, note, verdict } from './page.js';
import { DisprovedError } from './witness.js';

/**
 * A server with clients connected goes from one host to the other, as a stream, its address with it. The two commands
 * are those that anybody would give; this process is the line between them, and moves the address when the other end
 * says that the tree stands ready there.
 */
const STASIS = fileURLToPath(new URL('../../bin/stasis', import.meta.url));
const SERVICE = fileURLToPath(new URL('./workload/service.js', import.meta.url));
const PORT = 7000;
const CLIENTS = 8;
const ANSWERS_BEFORE = 200;
const ANSWERS_AFTER = 200;
const PATIENCE_MS = 60_000;

interface Moments {
  readonly asked_ms: number;
  ready_ms: number;
  running_ms: number;
}

export async function showMove(directory: string): Promise<void> {
  heading('A server moves to another host, its clients connected');
  makeBridge();
  using from = await Host.start('a');
  using to = await Host.start('b');
  from.takeAddress(false);
  const pid = await startService(from, directory);
  const clients = await Promise.all(
    Array.from({ length: CLIENTS }, () => Client.start(SERVICE_ADDRESS, PORT, pid)),
  );
  try {
    await answered(clients, ANSWERS_BEFORE);
    note(`server ${pid} on host a answers ${CLIENTS} clients at ${SERVICE_ADDRESS}:${PORT}`);
    to.takeAddress(true);
    for (const client of clients) client.forget();
    const { moments, saved, restored } = await move(from, to, pid);
    await answered(clients, ANSWERS_AFTER);
    const total = clients.reduce((sum, client) => sum + client.answers, 0);
    verdict(
      true,
      `it runs on host b: pid ${restored.pid}, ${restored.threads} threads, ${mib(saved.image_bytes)} sent`,
    );
    verdict(
      true,
      `all ${CLIENTS} connections live, all ${total} answers were right, in order, of the same process`,
    );
    assertGone(from, pid);
    draw(moments, saved, restored, clients);
  } finally {
    for (const client of clients) client.end();
  }
}

/** What it inherited from whoever started us could not be moved. */
const CLOSE = 'for fd in $(ls /proc/self/fd); do [ "$fd" -gt 2 ] && eval "exec $fd>&-"; done 2>/dev/null';

async function startService(host: Host, directory: string): Promise<number> {
  const ready = join(directory, 'service');
  const script = `${CLOSE}; cd /; exec setsid "$@" </dev/null >/dev/null 2>"$0"`;
  const args = [process.execPath, SERVICE, SERVICE_ADDRESS, String(PORT), ready];
  host.spawn('bash', ['-c', script, join(directory, 'complaints of the service'), ...args], 'ignore');
  const pid = await until('the server is up', () => {
    const text = read(ready);
    return text === '' ? undefined : Number(text);
  });
  return pid;
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

async function until<T>(what: string, look: () => T | undefined): Promise<T> {
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    const found = look();
    if (found !== undefined) return found;
    if (performance.now() > deadline)
      throw new DisprovedError(`not so after ${PATIENCE_MS / 1000} s: ${what}`);
    await pause(2);
  }
}

/** Every client has had so many more answers. */
async function answered(clients: readonly Client[], more: number): Promise<void> {
  const goals = clients.map((client) => client.answers + more);
  await until(`${more} answers for each client`, () => {
    for (const client of clients) client.check();
    return clients.every((client, index) => client.answers >= (goals[index] ?? 0)) || undefined;
  });
}

async function move(
  from: Host,
  to: Host,
  pid: number,
): Promise<{ moments: Moments; saved: CheckpointResult; restored: RestoreResult }> {
  const target = to.spawn(STASIS, ['restore', '--detach', '--json', '-'], ['pipe', 'pipe', 'pipe']);
  const moments = { asked_ms: now_ms(), ready_ms: 0, running_ms: 0 };
  const source = from.spawn(
    STASIS,
    ['checkpoint', '--pid', String(pid), '--tcp-established', '--json', '-o', '-', '--wait-ready'],
    ['pipe', 'pipe', 'pipe'],
  );
  source.stdout?.pipe(target.stdin as Writable);
  target.stdin?.on('error', () => {});
  source.stdin?.on('error', () => {});
  const restored = relay(target.stdout as Readable, source.stdin as Writable, moments, () => {
    from.dropAddress();
    to.announceAddress();
  });
  const [saved, complaint] = await Promise.all([lastLine(source), lastLine(target, 'stderr')]);
  if (source.exitCode !== 0) throw new DisprovedError(`the move failed: ${saved} ${complaint}`);
  return { moments, saved: JSON.parse(saved) as CheckpointResult, restored: await restored };
}

/** Hands the answers on; answers what the command prints behind them. */
async function relay(
  answers: Readable,
  to: Writable,
  moments: Moments,
  ready: () => void,
): Promise<RestoreResult> {
  let result: RestoreResult | undefined;
  for await (const line of createInterface({ input: answers })) {
    if (line.startsWith('{')) result = JSON.parse(line) as RestoreResult;
    if (line.startsWith('ready')) {
      moments.ready_ms = now_ms();
      ready();
    }
    if (line.startsWith('running')) moments.running_ms = now_ms();
    if (!line.startsWith('{')) to.write(`${line}\n`);
  }
  to.end();
  if (result === undefined) throw new DisprovedError('the other host has not said what it restored');
  return result;
}

/** The last line that a command prints to standard error. */
async function lastLine(child: ChildProcess, _stream: 'stderr' = 'stderr'): Promise<string> {
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  let last = '';
  for await (const line of createInterface({ input: child.stderr as Readable })) last = line;
  await ended;
  return last;
}

function assertGone(host: Host, pid: number): void {
  const state = host.run('sh', ['-c', `cat /proc/${pid}/stat 2>/dev/null || true`]);
  const isThere = state !== '' && !/\) [ZX] /.test(state);
  if (isThere) throw new DisprovedError(`pid ${pid} still runs on host a`);
  verdict(true, 'host a has neither the server any more, nor its address');
}

function now_ms(): number {
  return performance.now();
}

const FREEZE = 'freeze';
const WRITE = 'write';

function draw(
  moments: Moments,
  saved: CheckpointResult,
  restored: RestoreResult,
  clients: readonly Client[],
): void {
  const until_phase = (name: string): number =>
    saved.phases
      .slice(
        0,
        saved.phases.findIndex((phase) => phase.name === name),
      )
      .reduce((sum, { duration_ms }) => sum + duration_ms, 0);
  // The engine's own times, put where their end is known: the source's last phase ends when it hears that the tree runs.
  const all_ms = saved.phases.reduce((sum, { duration_ms }) => sum + duration_ms, 0);
  const begin = moments.running_ms - moments.asked_ms - all_ms;
  const rows: [time_ms: number, text: string][] = [
    [begin + until_phase(FREEZE), 'looked: nothing that could not be moved'],
    [
      begin + until_phase(FREEZE) + saved.freezing_ms,
      'frozen: everybody stands still, connections are silent',
    ],
    [begin + until_phase(WRITE), 'written: memory is with the other host'],
    [moments.ready_ms - moments.asked_ms, 'restored: the tree stands ready on host b; the address follows'],
    [moments.running_ms - moments.asked_ms, 'running'],
  ];
  heading('Time line, in ms');
  for (const [time_ms, text] of rows) note(`${ms(time_ms).padStart(9)}  ${text}`);
  heading('The longest wait of each client for an answer');
  bars(clients.map((client, index) => ({ name: `client ${index + 1}`, duration_ms: client.gap_ms })));
  note(
    `(frozen for ${ms(saved.frozen_ms)} ms, of which the restore took ${ms(restored.total_ms)} with all it received)`,
  );
}
