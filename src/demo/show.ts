import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { check, checkpoint, createEngine, type Restored, restore } from '../library/api.js';
import type { CheckpointResult, CheckResult } from '../library/results.js';
import { census, difference, type Resident, untilGone } from './census.js';
import { showMove } from './move.js';
import { heading, note, say, verdict } from './page.js';
import { Server } from './server.js';
import { drawImage, drawTimes, type Times } from './summary.js';
import { showTerminal } from './terminal.js';
import { DisprovedError, Witness } from './witness.js';

/** What the outer process prepared; see main.ts. */
export interface Stage {
  /** Its own, removed afterwards. */
  readonly directory: string;
  /** In memory, its own, removed afterwards. */
  readonly memoryDirectory: string;
  readonly python: string | undefined;
  /** There can be two hosts with a network between them. */
  readonly canMove: boolean;
}

/** Pages of each member's memory. */
const PAGES = 2048;
const PAUSE_MS = 5;
const BEATS_BEFORE = 60;
const BEATS_AFTER = 60;
const BEATS_BETWEEN = 20;
const PATIENCE_MS = 30_000;

/** The whole demo, in a namespace of its own. Answers whether everything was proved. */
export async function show(stage: Stage): Promise<boolean> {
  await using engine = createEngine();
  const host = await check({ engine });
  if (!host.ok) {
    reportHost(host);
    return false;
  }
  if (!(await proved(() => moveAndTerminal(stage)))) return false;
  const act = new Act(stage);
  try {
    await act.begin();
    const times = await act.checkpointAndRestore(engine);
    await act.goOn();
    await act.end();
    await drawImage(act.image);
    drawTimes(times);
    say();
    verdict(
      true,
      `Everything was proved: ${act.witness.compared} states and hashes, of ${act.witness.beats} beats.`,
    );
    return true;
  } catch (error) {
    verdict(false, error instanceof Error ? error.message : String(error));
    if (!(error instanceof DisprovedError) && error instanceof Error) note(error.stack ?? '');
    const { complaints } = act.server;
    if (complaints !== '') note(`The server complained:\n${complaints}`);
    return false;
  } finally {
    act.witness.close();
  }
}

/** What has no server that could complain. */
async function proved(show: () => Promise<void>): Promise<boolean> {
  try {
    await show();
    return true;
  } catch (error) {
    verdict(false, error instanceof Error ? error.message : String(error));
    if (!(error instanceof DisprovedError) && error instanceof Error) note(error.stack ?? '');
    return false;
  }
}

async function moveAndTerminal({ directory, canMove, python }: Stage): Promise<void> {
  if (canMove) await showMove(directory);
  if (python !== undefined) await showTerminal(directory, python);
}

function reportHost({ host }: CheckResult): void {
  heading('This machine lacks what Stasis needs:');
  for (const { what, state, required, reason } of host)
    if (required && state !== 'ok') verdict(false, `${what}: ${reason ?? state}`);
}

class Act {
  readonly server: Server;
  readonly witness: Witness;
  readonly image: string;
  #before: readonly Resident[] = [];
  #restored: Restored | undefined;

  constructor({ directory, memoryDirectory, python }: Stage) {
    this.image = join(directory, 'image');
    this.server = new Server(directory, {
      seed: randomBytes(16).toString('hex'),
      pages: PAGES,
      memoryDirectory,
      python,
      pause_ms: PAUSE_MS,
    });
    this.witness = new Witness(this.server.settings);
  }

  /** Start the workload, look at it, and tell it something that nobody else knows. */
  async begin(): Promise<void> {
    heading('A server and those it talks with');
    await this.#beats(BEATS_BEFORE, 'start of the server');
    this.#before = census(this.server.pid);
    for (const { pid, comm, tids, descriptors, ppid } of this.#before)
      note(
        `${pid === this.server.pid ? '' : ppid === this.server.pid ? '└─ ' : '   └─ '}${comm} ${pid}: ` +
          `${count(tids.length, 'thread')}, ${count(descriptors.length, 'descriptor')}`,
      );
    note(
      `${this.witness.beats} beats so far; at each, everybody takes a step of SHA-256 through 8 MiB of memory`,
    );
    await this.#tellSecret();
  }

  async #tellSecret(): Promise<void> {
    const secret = randomBytes(8).toString('hex');
    const reports = this.witness.reports.length;
    this.witness.told(secret);
    this.server.tell(`remember ${secret}`);
    await this.#until(() => this.witness.reports.length > reports, 'a report');
    note(`told the server a secret: ${secret}`);
  }

  /** The program stands still from the freeze to the end of the restore, so nothing else is done in between. */
  async checkpointAndRestore(engine: ReturnType<typeof createEngine>): Promise<Times> {
    const { pid } = this.server;
    heading('Checkpoint, kill, restore');
    const verdictBefore = await check({ pid, engine });
    if (verdictBefore.refusals?.length !== 0)
      throw new DisprovedError(
        `the tree cannot be saved: ${verdictBefore.refusals?.map(({ task, object, reason }) => `${object} of ${task}: ${reason}`).join('; ')}`,
      );
    this.witness.takeGap();
    const asked_ms = now_ms();
    const checkpointed = await checkpoint({
      pid,
      directory: this.image,
      afterwards: 'kill',
      checksums: false,
      engine,
    });
    const killed_ms = now_ms();
    this.#assertKilled(await this.server.ended);
    await untilGone(this.#before, PATIENCE_MS);
    const gone_ms = now_ms();
    this.witness.read();
    const beat = this.witness.beats;
    this.#restored = await restore({ directory: this.image, engine });
    const restored_ms = now_ms();
    this.#sayCheckpoint(checkpointed, beat);
    await this.#beats(BEATS_BETWEEN, 'going on after the restore');
    const gap = this.witness.takeGap();
    return {
      asked_ms,
      killed_ms,
      gone_ms,
      restored_ms,
      checkpointed,
      restored: this.#restored,
      gap,
    };
  }

  #sayCheckpoint(result: CheckpointResult, beat: number): void {
    verdict(
      true,
      `saved ${count(result.processes, 'process', 'processes')} with ${count(result.threads, 'thread')}`,
    );
    verdict(true, `killed: none of their ${this.#before.length} pids exists; the last beat was ${beat}`);
    verdict(true, `restored: pid ${this.#restored?.pid} leads them again`);
  }

  #assertKilled(how: string): void {
    if (how !== 'SIGKILL') throw new DisprovedError(`the server ended by ${how}, not by SIGKILL`);
  }

  /** It runs again: let it prove that it is what it was. */
  async goOn(): Promise<void> {
    heading('It goes on where it was');
    await this.#beats(BEATS_AFTER, 'beats after the restore');
    const different = difference(this.#before, census(this.server.pid));
    if (different !== undefined) throw new DisprovedError(`the tree is not what it was:\n${different}`);
    const { witness } = this;
    const tids = this.#before.reduce((sum, resident) => sum + resident.tids.length, 0);
    verdict(
      true,
      `the same ${this.#before.length} pids and ${tids} thread ids, parents, groups, session and descriptors`,
    );
    verdict(
      true,
      `beats 1 to ${witness.beats} are all there, once each, in order: no message in a pipe was lost or repeated`,
    );
    await this.#tellSecret();
    verdict(
      true,
      `SHA-256 over the memory of ${Object.keys(witness.reports.at(-1)?.memory ?? {}).join(', ')}: as calculated here`,
    );
    verdict(true, `it remembers both secrets; the code that starts it ran once`);
    const signals = witness.last?.signals;
    if (witness.hasSignals && signals !== undefined)
      verdict(
        true,
        `${signals.sent} signals sent, ${signals.handled} handled, ${signals.answered} answered by a signal`,
      );
  }

  /** Ends it as anybody would; a restored process can be waited for. */
  async end(): Promise<void> {
    this.server.tell('stop');
    const exit = await this.#restored?.exit;
    const holds = exit?.kind === 'exited' && exit.status === 0;
    if (!holds) throw new DisprovedError(`asked to end, the server ended with ${JSON.stringify(exit)}`);
    this.witness.read();
    verdict(true, 'asked to end, it ended with status 0');
  }

  #beats(more: number, what: string): Promise<void> {
    const goal = this.witness.beats + more;
    return this.#until(() => this.witness.beats >= goal, what);
  }

  /** What ends the waiting too soon is the end of the server. */
  async #until(enough: () => boolean, what: string): Promise<void> {
    let end: string | undefined;
    const life = this.#restored?.exit?.then((exit) => JSON.stringify(exit)) ?? this.server.ended;
    void life.then((how) => {
      end = how;
    });
    const isThere = (): boolean => {
      if (end !== undefined) throw new DisprovedError(`the server ended by itself: ${end}`);
      return enough();
    };
    await this.witness.until(isThere, what, PATIENCE_MS);
  }
}

/** The clock that the server's beats are dated by. */
function now_ms(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

function count(number: number, one: string, many = `${one}s`): string {
  return `${number} ${number === 1 ? one : many}`;
}
