import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { findProgram, findPython, missingHere, NAMESPACE, NETWORK, obstacleToMove } from './needs.js';
import { failure, heading, note, say } from './page.js';
import { type Stage, show } from './show.js';

/**
 * `npm start`: a server with clients is moved to another host, a terminal is put into a file and brought back, and a workload
 * of real programs is checkpointed, killed and restored; each has to prove that nothing happened to it. This process looks for what is needed, starts the demo in a pid namespace, and removes all of it again.
 */
const INSIDE = '--inside';
const INTERRUPTED_STATUS = 130;

/**
 * The namespace's init: closes what it inherited (a pipe of whoever started us could not be saved), and collects
 * orphans, which Node would not. A plain sh can name descriptors below 10 only.
 */
const INIT = `for link in /proc/self/fd/*; do fd=\${link##*/}; case $fd in
[0-2]) ;; [3-9]) eval "exec $fd>&-" ;; *) if [ -n "$BASH_VERSION" ]; then eval "exec $fd>&-"; fi ;;
esac; done; "$@"; exit $?`;

async function main(): Promise<number> {
  say('Stasis: real programs are moved while they work, saved, killed and brought back');
  const missing = missingHere();
  if (missing.length > 0) {
    for (const what of missing) failure(`missing: ${what}`);
    return 1;
  }
  const python = findPython();
  const obstacle = obstacleToMove();
  if (python.path === undefined || obstacle !== undefined) heading('Left out');
  if (obstacle !== undefined) note(`the server that moves between two hosts: ${obstacle}`);
  if (python.path === undefined) note(`everything with Python in it: ${python.reason}`);
  const interruption = new Interruption();
  const directory = mkdtempSync(join(tmpdir(), 'stasis-demo-'));
  const memoryDirectory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : directory, 'stasis-demo-'));
  try {
    const status = await runInside(
      { directory, memoryDirectory, python: python.path, canMove: obstacle === undefined },
      interruption,
    );
    if (interruption.came) failure('interrupted; nothing is left');
    return interruption.came ? INTERRUPTED_STATUS : status;
  } finally {
    for (const each of [memoryDirectory, directory])
      rmSync(each, { recursive: true, force: true, maxRetries: 10 });
  }
}

/** Everything ends with the namespace, however it ends; so this only has to see to it that it does. */
async function runInside(stage: Stage, interruption: Interruption): Promise<number> {
  const shell = findProgram('bash') ?? 'sh';
  const self = [process.execPath, fileURLToPath(import.meta.url), INSIDE, JSON.stringify(stage)];
  const namespaces = stage.canMove ? [...NAMESPACE, ...NETWORK] : NAMESPACE;
  const child = spawn('unshare', [...namespaces, shell, '-c', INIT, shell, ...self], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  interruption.react(() => killInit(child.pid));
  return new Promise<number>((resolve, reject) => {
    child.on('exit', (code) => resolve(code ?? 1));
    child.on('error', reject);
  });
}

/** Whoever interrupts us is heard from the start on, and acted upon where there is something to end. */
class Interruption {
  #came = false;
  #act: () => void = () => {};

  constructor() {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
      process.on(signal, () => {
        this.#came = true;
        this.#act();
      });
  }

  get came(): boolean {
    return this.#came;
  }

  react(act: () => void): void {
    this.#act = act;
    if (this.#came) act();
  }
}

/** unshare(1) waits for the namespace's init, whose death the kernel makes the death of everybody in it. */
function killInit(unshare: number | undefined): void {
  const children = readFileSync(`/proc/${unshare}/task/${unshare}/children`, 'utf8');
  const [init] = children.split(' ').filter((pid) => pid !== '');
  // Before there is an init, unshare(1) itself is all there is.
  process.kill(Number(init ?? unshare), 'SIGKILL');
}

async function inside(argument: string): Promise<number> {
  // The terminal's signals are the outer process's business: it ends us.
  for (const signal of ['SIGINT', 'SIGHUP'] as const) process.on(signal, () => {});
  return (await show(JSON.parse(argument) as Stage)) ? 0 : 1;
}

const [flag, argument = ''] = process.argv.slice(2);
process.exit(flag === INSIDE ? await inside(argument) : await main());
