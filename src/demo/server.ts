import { execFileSync, spawn } from 'node:child_process';
import { appendFileSync, closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Settings } from './workload/settings.js';

const SERVER = fileURLToPath(new URL('./workload/server.js', import.meta.url));

/** The workload from outside: a server that leads a session of its own, and knows its directory only. */
export class Server {
  readonly settings: Settings;
  readonly pid: number;
  /** The first life's end: how it ended, in words. */
  readonly ended: Promise<string>;
  readonly #complaints: string;

  constructor(directory: string, settings: Omit<Settings, 'journal' | 'questions'>) {
    const journal = join(directory, 'journal');
    const questions = join(directory, 'questions');
    execFileSync('mkfifo', ['-m', '600', questions]);
    this.settings = { ...settings, journal, questions };
    this.#complaints = join(directory, 'complaints');
    const nothing = openSync('/dev/null', 'r');
    const complaints = openSync(this.#complaints, 'a', 0o600);
    const child = spawn(process.execPath, [SERVER, JSON.stringify(this.settings)], {
      detached: true,
      cwd: directory,
      stdio: [nothing, complaints, complaints],
    });
    closeSync(nothing);
    closeSync(complaints);
    if (child.pid === undefined) throw new Error(`${process.execPath} cannot be started`);
    this.pid = child.pid;
    this.ended = new Promise((resolve) => {
      child.on('exit', (status, signal) => resolve(signal === null ? `status ${status}` : signal));
    });
  }

  /** Put a line into its FIFO. */
  tell(question: string): void {
    appendFileSync(this.settings.questions, `${question}\n`);
  }

  /** What it wrote to standard error. */
  get complaints(): string {
    return readFileSync(this.#complaints, 'utf8').trim();
  }
}
