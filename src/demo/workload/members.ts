import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import type { Answer } from './journal.js';
import { ballastOf, PAGE_BYTES, Party } from './party.js';
import { HASH_REQUEST, MAILBOX, MAILBOX_BYTES, PYTHON_PROGRAM } from './python.js';
import { PIPELINE, PYTHON, SERVER, type Settings, THREADS, WORKERS } from './settings.js';

/** Somebody the server asks once a beat. */
export interface Member {
  readonly name: string;
  step(beat: number): Promise<Answer>;
  /** SHA-256 of its memory in hex; undefined for who has none to speak of. */
  hash(): Promise<string | undefined>;
  end(): void;
}

/** The server's own memory. */
function serverItself({ seed, pages }: Settings): Member {
  const party = new Party(ballastOf(seed, SERVER, pages));
  return {
    name: SERVER,
    step: async (beat) => ({ pid: process.pid, state: party.step(beat) }),
    hash: async () => party.memoryHash,
    end: () => {},
  };
}

/** What wakes a thread, and what it is asked: a word to wait on, and a number. */
export interface ThreadData {
  readonly control: SharedArrayBuffer;
  readonly ballast: SharedArrayBuffer;
}

/** A thread of the server: its memory is shared, it is woken by a futex, and answers by a message. */
function thread(name: string, { seed, pages }: Settings): Member {
  const ballast = new SharedArrayBuffer(pages * PAGE_BYTES);
  const mine = new Uint8Array(ballast);
  mine.set(ballastOf(seed, name, pages));
  const control = new SharedArrayBuffer(8);
  const words = new Int32Array(control);
  const worker = new Worker(new URL('./thread.js', import.meta.url), { workerData: { control, ballast } });
  const answers = new Answers(name);
  worker.on('message', (state: string) => answers.come(state));
  worker.on('error', (error) => answers.fail(error));
  return {
    name,
    step: async (beat) => {
      Atomics.store(words, 1, beat);
      Atomics.add(words, 0, 1);
      Atomics.notify(words, 0);
      return { pid: process.pid, state: await answers.next() };
    },
    // Nobody else touches it between two beats, so its memory can be read here.
    hash: async () => new Party(mine).memoryHash,
    end: () => void worker.terminate(),
  };
}

/** A process that is asked a line and answers one. */
class Conversation {
  readonly process: ChildProcess;
  readonly #answers: Answers;
  readonly #questions: Writable;

  constructor(name: string, file: string, args: readonly string[]) {
    this.#answers = new Answers(name);
    this.process = spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    const { stdin, stdout } = this.process as { stdin: Writable; stdout: Readable } & ChildProcess;
    this.#questions = stdin;
    createInterface({ input: stdout }).on('line', (line) => this.#answers.come(line));
    this.process.on('exit', (status, signal) =>
      this.#answers.fail(new Error(`${name} ended (${signal ?? status})`)),
    );
    this.process.on('error', (error) => this.#answers.fail(error));
  }

  ask(question: string): Promise<string> {
    this.#questions.write(`${question}\n`);
    return this.#answers.next();
  }

  end(): void {
    this.#questions.end();
  }
}

/** A Node process of its own, on the other end of two sockets. */
function worker(name: string, { seed, pages }: Settings): Member {
  const file = fileURLToPath(new URL('./worker.js', import.meta.url));
  const conversation = new Conversation(name, process.execPath, [file, seed, name, String(pages)]);
  return {
    name,
    step: async (beat) => {
      const [pid = '', state = ''] = (await conversation.ask(`step ${beat}`)).split(' ');
      return { pid: Number(pid), state };
    },
    hash: () => conversation.ask('hash'),
    end: () => conversation.end(),
  };
}

/** A shell that counts, and a sed behind it; the pipe between them is the shell's. */
const PIPELINE_SCRIPT =
  'n=0; while read -r beat; do n=$((n + 1)); echo "$beat $n"; done | sed -u "s/^/$$ beat /"';

function pipeline(): Member {
  const conversation = new Conversation(PIPELINE, 'sh', ['-c', PIPELINE_SCRIPT]);
  return {
    name: PIPELINE,
    step: async (beat) => {
      const [pid = '', ...words] = (await conversation.ask(String(beat))).split(' ');
      return { pid: Number(pid), state: words.join(' ') };
    },
    hash: async () => undefined,
    end: () => conversation.end(),
  };
}

/** Also counts its signals. */
export interface PythonMember extends Member {
  readonly signals: { sent: number; handled: number; answered: number };
}

/** The Python pair: asked through a file in memory and a signal, which is also how it answers. */
async function python({ seed, pages, memoryDirectory }: Settings, file: string): Promise<PythonMember> {
  const path = join(memoryDirectory, `stasis-demo-${process.pid}`);
  const mailbox = openSync(path, 'wx+', 0o600);
  // From here on nobody finds it: what it holds is in the processes that have it, and then in the image.
  rmSync(path);
  writeSync(mailbox, Buffer.alloc(MAILBOX_BYTES));
  const answers = new Answers(PYTHON);
  process.on('SIGUSR2', () => answers.come('signal'));
  const child = spawn(file, ['-c', PYTHON_PROGRAM, seed, String(pages)], {
    stdio: ['ignore', 'inherit', 'inherit', mailbox],
  });
  child.on('exit', (status, signal) => answers.fail(new Error(`python ended (${signal ?? status})`)));
  child.on('error', (error) => answers.fail(error));
  await answers.next();
  const signals = { sent: 0, handled: 0, answered: 0 };
  const read = (at: number, length: number): Buffer => {
    const bytes = Buffer.alloc(length);
    readSync(mailbox, bytes, 0, length, at);
    return bytes;
  };
  const ask = async (beat: number): Promise<void> => {
    const number = Buffer.alloc(4);
    number.writeUInt32LE(beat);
    writeSync(mailbox, number, 0, 4, MAILBOX.beat);
    signals.sent++;
    child.kill('SIGUSR1');
    await answers.next();
    signals.answered++;
    signals.handled = read(MAILBOX.handled, 4).readUInt32LE();
    const answered = read(MAILBOX.answered, 4).readUInt32LE();
    if (answered !== beat) throw new Error(`python answered ${answered} when asked for ${beat}`);
  };
  return {
    name: PYTHON,
    signals,
    step: async (beat) => {
      await ask(beat);
      return { pid: read(MAILBOX.child, 4).readUInt32LE(), state: read(MAILBOX.state, 32).toString('hex') };
    },
    hash: async () => {
      await ask(HASH_REQUEST);
      return read(MAILBOX.hash, 32).toString('hex');
    },
    end: () => {
      child.kill('SIGTERM');
      closeSync(mailbox);
    },
  };
}

/** Answers in the order of the questions; at most one is waited for. */
class Answers {
  readonly #name: string;
  readonly #came: string[] = [];
  #waiting: { resolve: (answer: string) => void; reject: (error: Error) => void } | undefined;
  #failure: Error | undefined;

  constructor(name: string) {
    this.#name = name;
  }

  come(answer: string): void {
    if (this.#waiting === undefined) this.#came.push(answer);
    else this.#waiting.resolve(answer);
    this.#waiting = undefined;
  }

  fail(error: Error): void {
    this.#failure = error;
    this.#waiting?.reject(error);
  }

  next(): Promise<string> {
    const first = this.#came.shift();
    if (first !== undefined) return Promise.resolve(first);
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#waiting !== undefined)
      return Promise.reject(new Error(`${this.#name} is asked two things at once`));
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }
}

export interface Members {
  readonly all: readonly Member[];
  readonly python: PythonMember | undefined;
}

export async function startMembers(settings: Settings): Promise<Members> {
  const pair = settings.python === undefined ? undefined : await python(settings, settings.python);
  const all = [
    serverItself(settings),
    ...THREADS.map((name) => thread(name, settings)),
    ...WORKERS.map((name) => worker(name, settings)),
    ...(pair === undefined ? [] : [pair]),
    pipeline(),
  ];
  return { all, python: pair };
}
