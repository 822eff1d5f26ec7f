import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { Peers } from './peers.js';
import { SUBJECT, type Workload } from './workloads.js';

const BOARD_BYTES = 4096;
const WORD_BYTES = 8;
const WORD = { asked: 0, period: 1, longest_ns: 2 } as const;
const POLL_MS = 1;
const PATIENCE_MS = 120_000;

/** It did not do what it must in time; it is then ended. */
export class SubjectError extends Error {}

/**
 * A running workload. It leads a session of its own, is nobody's child but init's, and has nothing open but its board and
 * what the workload says. Files of its stay in `directory` until it is disposed of.
 */
export class Subject implements Disposable {
  readonly pid: number;
  readonly #directory: string;
  readonly #board: number;
  readonly #peers: Peers | undefined;
  #period = 0n;

  private constructor(pid: number, directory: string, board: number, peers: Peers | undefined) {
    this.pid = pid;
    this.#peers = peers;
    this.#directory = directory;
    this.#board = board;
  }

  /** Started, and all of it there. */
  static async start(workload: Workload, directory: string): Promise<Subject> {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    const file = join(directory, 'board');
    const program = join(directory, 'subject.py');
    writeFileSync(file, Buffer.alloc(BOARD_BYTES), { mode: 0o600 });
    writeFileSync(program, SUBJECT);
    const script =
      'cd "$1" && setsid python3 -S -E "$2" "$3" "$4" </dev/null >/dev/null 2>>"$1/complaints" & echo $!';
    const { connections } = workload;
    const peers = connections > 0 ? await Peers.listen(connections) : undefined;
    const spec = { ...workload, port: peers?.port };
    const args = ['-c', script, 'sh', directory, program, JSON.stringify(spec), file];
    const pid = Number(execFileSync('sh', args, { encoding: 'utf8' }));
    const subject = new Subject(pid, directory, openSync(file, 'r+'), peers);
    await subject.nextPeriod();
    // The kernel has accepted all of them by now; this process has to see to it.
    const deadline = performance.now() + PATIENCE_MS;
    while (peers !== undefined && peers.connected < connections) {
      if (performance.now() > deadline)
        throw new SubjectError(`pid ${pid} has ${peers.connected} connections of ${connections}`);
      await pause(POLL_MS);
    }
    return subject;
  }

  /** The longest time, in ms, in which it did not see the clock since this was last asked. */
  async nextPeriod(): Promise<number> {
    this.#period++;
    const word = Buffer.alloc(WORD_BYTES);
    word.writeBigUInt64LE(this.#period);
    writeSync(this.#board, word, 0, WORD_BYTES, WORD.asked * WORD_BYTES);
    const deadline = performance.now() + PATIENCE_MS;
    while (this.#read(WORD.period) !== this.#period) {
      if (performance.now() > deadline || !exists(this.pid))
        throw new SubjectError(`pid ${this.pid} does not look at its board (any more)`);
      await pause(POLL_MS);
    }
    return Number(this.#read(WORD.longest_ns)) / 1e6;
  }

  #read(word: number): bigint {
    const bytes = Buffer.alloc(WORD_BYTES);
    readSync(this.#board, bytes, 0, WORD_BYTES, word * WORD_BYTES);
    return bytes.readBigUInt64LE();
  }

  /** Any of its group, zombies too. */
  #exists(): boolean {
    return exists(-this.pid);
  }

  /** Ended, collected by init, and its pids free again. */
  async untilGone(): Promise<void> {
    const deadline = performance.now() + PATIENCE_MS;
    while (this.#exists()) {
      if (performance.now() > deadline) throw new SubjectError(`group ${this.pid} is still there`);
      await pause(POLL_MS);
    }
  }

  async end(): Promise<void> {
    const lost = this.#peers?.lost ?? 0;
    if (this.#exists()) process.kill(-this.pid, 'SIGKILL');
    await this.untilGone();
    this[Symbol.dispose]();
    if (lost > 0) throw new SubjectError(`${lost} connections of pid ${this.pid} are lost`);
  }

  [Symbol.dispose](): void {
    if (this.#exists()) process.kill(-this.pid, 'SIGKILL');
    this.#peers?.[Symbol.dispose]();
    closeSync(this.#board);
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** A process, or with a minus sign a group; it is one only after its setsid(1). */
function exists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
