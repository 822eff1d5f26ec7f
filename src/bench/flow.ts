import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { checkpoint, restore } from '../library/api.js';
import { Engine } from '../library/engine.js';
import { enter } from './enter.js';
import { median } from './statistics.js';

/**
 * `npm run bench:flow -- [--rounds 200]`: bytes flow both ways over a TCP connection while one end of it is dumped,
 * killed and restored again and again, with at least RUNNING_MS between. The same flow undisturbed comes first. In
 * namespaces of its own.
 */
const INSIDE = 'STASIS_FLOW_INSIDE';
const RUNNING_MS = 200;
/** A chunk, then a short sleep, so that what is measured is waiting, not the machine's two processors. */
const CHUNK_BYTES = 1 << 16;
const PACE_S = 0.001;
/** About what flows in one round, from one restore to the next dump. */
const ROUND_BYTES = 16 << 20;

const POLL_MS = 5;

class FlowError extends Error {}

/** Arguments: how many bytes are sent each way, and the port to connect to, or none to listen. */
const PROGRAM = `
import hashlib, os, select, socket, sys, time
os.closerange(3, 65536)
total, chunk = int(sys.argv[1]), os.urandom(${CHUNK_BYTES})
if len(sys.argv) > 2: sock = socket.create_connection(('127.0.0.1', int(sys.argv[2])))
else:
  listener = socket.create_server(('127.0.0.1', 0))
  print('port', listener.getsockname()[1], flush=True)
  sock = listener.accept()[0]
sock.setblocking(False)
out, into, gone, come, begin = hashlib.sha256(), hashlib.sha256(), 0, 0, time.monotonic()
while gone < total or come < total:
  r, w, _ = select.select([sock] if come < total else [], [sock] if gone < total else [], [])
  if r:
    data = sock.recv(1 << 20)
    if not data: raise SystemExit('the end of the flow after %d bytes' % come)
    into.update(data); come += len(data)
  if w:
    at = gone % len(chunk)
    n = sock.send(chunk[at:at + total - gone])
    out.update(chunk[at:at + n]); gone += n
    time.sleep(${PACE_S})
print('end', time.monotonic() - begin, out.hexdigest(), into.hexdigest(), flush=True)
`;

interface End {
  readonly pid: number;
  readonly output: string;
}

/** What it says goes to a file: a pipe's other end would be outside of the tree. */
function start(directory: string, name: string, bytes: number, port?: string): End {
  const output = join(directory, name);
  const script = 'out="$1"; shift; setsid /usr/bin/python3 -c "$@" </dev/null >"$out" 2>&1 & echo $!';
  const args = ['-c', script, 'sh', output, PROGRAM, String(bytes), ...(port === undefined ? [] : [port])];
  return { pid: Number(execFileSync('sh', args, { encoding: 'utf8' })), output };
}

function said({ output }: End): string {
  return readFileSync(output, 'utf8');
}

async function line(end: End, word: string): Promise<string[]> {
  for (;;) {
    const [first, ...values] = said(end).trimEnd().split('\n').at(-1)?.split(' ') ?? [];
    if (first === word) return values;
    if (!existsSync(`/proc/${end.pid}`) && first !== undefined) throw new FlowError(said(end));
    await pause(POLL_MS);
  }
}

interface Flow {
  readonly total_s: number;
  readonly frozen_ms: readonly number[];
}

/** One flow from start to end; checked, that what came is what went. */
async function flow(directory: string, bytes: number, engine?: Engine): Promise<Flow> {
  const server = start(directory, 'server', bytes);
  const [port = ''] = await line(server, 'port');
  const client = start(directory, 'client', bytes, port);
  const frozen_ms: number[] = [];
  while (engine !== undefined) {
    await pause(RUNNING_MS);
    const moved_ms = await moveOn(server.pid, join(directory, 'image'), engine).catch((error: unknown) => {
      if (isDone(server) || isDone(client)) return undefined;
      throw error;
    });
    if (moved_ms === undefined) break;
    frozen_ms.push(moved_ms);
    process.stderr.write(`\r${frozen_ms.length} times `);
  }
  const [total_s = '', ...sums] = await line(client, 'end');
  const [, ...others] = await line(server, 'end');
  if (sums.join() !== others.reverse().join()) throw new FlowError(`sums differ: ${sums} and ${others}`);
  return { total_s: Number(total_s), frozen_ms };
}

function isDone(end: End): boolean {
  return said(end).includes('end');
}

/** Dumped, killed, restored: how long the end of the flow stood still, in ms. */
async function moveOn(pid: number, directory: string, engine: Engine): Promise<number> {
  const { frozen_ms } = await checkpoint({ pid, directory, tcp_established: true, overwrite: true, engine });
  const killed_at = performance.now();
  await restore({ directory, detach: true, engine });
  return frozen_ms + performance.now() - killed_at;
}

async function measure(rounds: number): Promise<void> {
  execFileSync('ip', ['link', 'set', 'lo', 'up']);
  const directory = mkdtempSync(join(tmpdir(), 'stasis-flow-'));
  try {
    const bytes = rounds * ROUND_BYTES;
    const undisturbed = await flow(directory, bytes);
    await using engine = new Engine();
    const { total_s, frozen_ms } = await flow(directory, bytes, engine);
    const frozen_s = frozen_ms.reduce((sum, value) => sum + value, 0) / 1000;
    const ratio = total_s / (undisturbed.total_s + frozen_s);
    process.stdout.write(
      `\n${bytes} bytes each way, ${frozen_ms.length} times dumped, killed and restored, at least ${RUNNING_MS} ms apart: SHA-256 equal\n` +
        `undisturbed ${undisturbed.total_s.toFixed(1)} s, frozen ${frozen_s.toFixed(1)} s (median ${median(frozen_ms).toFixed(0)} ms), ` +
        `total ${total_s.toFixed(1)} s: ${ratio.toFixed(2)} of (undisturbed + frozen)\n`,
    );
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '200' } } });
if (process.env[INSIDE] === undefined)
  process.exitCode = enter(['--net', '--ipc'], INSIDE, fileURLToPath(import.meta.url), process.argv.slice(2));
else await measure(Number(values.rounds));
