import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readTree } from '../kernel/procfs/tree.js';
import { attempt } from '../kernel/syscall.js';
import { HOLDING_PROGRAM, HOLDINGS, type Holding } from './fault-holding.js';
import { FAULT_PROGRAM } from './fault-program.js';
import { Subject } from './subject.js';

/**
 * The tree the fault tests are done to. It checks itself without pause (see fault-program.ts) and says so in a file
 * that all its processes map: counters that advance while it runs, and what it found wrong.
 */

/** What its last process runs under: nothing, filters, or strict mode. */
export type Confinement = 'none' | 'mild' | 'harsh' | 'strict';

const STATE_SIZE = 4096;
const ERRORS_AT = 8;
const INTERRUPTED_AT = 16;
const COUNTERS_AT = 64;
const TEXT_AT = 2048;

const LARGE = [
  'main',
  'registers',
  'ping',
  'nanosleep',
  'poll',
  'epoll_wait',
  'futex',
  'calls',
  'alarms',
  'confined',
] as const;
/** In the order of the programs' counters. Slow ones wait for an hour, and must never come back. */
const COUNTERS = [...LARGE, ...HOLDINGS] as const;
export type Counter = (typeof COUNTERS)[number];

export interface SubjectOptions {
  readonly confinement: Confinement;
  /** Fewer threads and processes, for trials at every single call. */
  readonly small?: boolean;
  /** Without a handler for SIGCHLD. */
  readonly deaf?: boolean;
  /** It will be continued by a SIGCONT: without a handler for that. */
  readonly continued?: boolean;
  /** The other program, with what it is to hold open. */
  readonly holds?: readonly Holding[];
}

/** Those that a small one has. */
const SMALL: readonly Counter[] = ['main', 'registers', 'ping', 'epoll_wait', 'calls', 'alarms', 'confined'];

export interface SubjectState {
  readonly errors: number;
  /** How often epoll_wait(2) returned EINTR. */
  readonly interrupted: number;
  readonly text: string;
  readonly counters: Readonly<Record<Counter, bigint>>;
}

export class FaultSubject implements Disposable {
  readonly pid: number;
  readonly directory: string;
  readonly #stateFile: string;
  readonly #subject: Subject;
  /** Counters that move. */
  readonly #alive: readonly Counter[];
  readonly #peer: Peer | undefined;
  #members: readonly number[] = [];

  private constructor(
    subject: Subject,
    peer: Peer | undefined,
    stateFile: string,
    alive: readonly Counter[],
  ) {
    const { directory } = subject;
    this.#alive = alive;
    this.#peer = peer;
    this.pid = subject.pid;
    this.directory = directory;
    this.#stateFile = stateFile;
    this.#subject = subject;
  }

  /** Starts one and waits until all of it runs. */
  static async start(options: SubjectOptions): Promise<FaultSubject> {
    const { holds } = options;
    const directory = mkdtempSync(join(tmpdir(), 'stasis-fault-'));
    const program = join(directory, 'subject.py');
    const stateFile = join(directory, 'state');
    writeFileSync(program, holds === undefined ? FAULT_PROGRAM : HOLDING_PROGRAM);
    writeFileSync(stateFile, new Uint8Array(STATE_SIZE));
    const peer = holds?.includes('tcp') === true ? await Peer.start() : undefined;
    const words = holds === undefined ? flagsOf(options) : [String(peer?.port ?? 0), ...holds];
    const subject = Subject.start(['/usr/bin/python3', program, stateFile, ...words], directory);
    await subject.expect(/ready\n/);
    const found = new FaultSubject(subject, peer, stateFile, aliveOf(options));
    await found.advance(10_000);
    found.#members = found.pids;
    return found;
  }

  get state(): SubjectState {
    const bytes = readFileSync(this.#stateFile);
    const counters = {} as Record<Counter, bigint>;
    COUNTERS.forEach((name, index) => {
      counters[name] = bytes.readBigUInt64LE(COUNTERS_AT + index * 8);
    });
    const end = bytes.indexOf(0, TEXT_AT);
    return {
      errors: Number(bytes.readBigUInt64LE(ERRORS_AT)),
      interrupted: Number(bytes.readBigUInt64LE(INTERRUPTED_AT)),
      text: bytes.toString('utf8', TEXT_AT, end < 0 ? undefined : end),
      counters,
    };
  }

  /** What it printed: a traceback, should the program itself be wrong. */
  get output(): string {
    return this.#subject.output;
  }

  /** Forget what was found wrong, for the next trial. */
  absolve(): void {
    const fd = openSync(this.#stateFile, 'r+');
    writeSync(fd, new Uint8Array(16), 0, 16, ERRORS_AT);
    closeSync(fd);
  }

  /** Wait until every counter has moved by at least two; answers those that did not. */
  async advance(timeout_ms: number): Promise<Counter[]> {
    const deadline = Date.now() + timeout_ms;
    const { counters: before } = this.state;
    for (;;) {
      const { counters } = this.state;
      const stuck = this.#alive.filter((name) => counters[name] < before[name] + 2n);
      if (stuck.length === 0 || Date.now() > deadline) return stuck;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** The pids of the tree, root first; empty when the root is gone. */
  get pids(): number[] {
    try {
      return readTree(this.pid).map(({ pid }) => pid);
    } catch {
      return [];
    }
  }

  /** SIGKILL for every process of the tree, those that lost their parent too. */
  kill(): void {
    for (const pid of new Set([...this.#members, ...this.pids])) attempt('kill', [pid, 9]);
  }

  [Symbol.dispose](): void {
    this.kill();
    this.#peer?.[Symbol.dispose]();
    this.#subject[Symbol.dispose]();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

function flagsOf({ confinement, small, deaf, continued }: SubjectOptions): string[] {
  const flags = { small, deaf, continued };
  return [
    confinement,
    ...Object.entries(flags)
      .filter(([, isSet]) => isSet === true)
      .map(([name]) => name),
  ];
}

function aliveOf({ holds, small }: SubjectOptions): readonly Counter[] {
  if (holds !== undefined) return ['main', ...holds];
  return small === true ? SMALL : LARGE;
}

/** Outside of the tree, in this process: says back what it hears. */
class Peer implements Disposable {
  readonly #server: Server;
  readonly #sockets: Socket[] = [];

  private constructor() {
    this.#server = createServer((socket) => {
      this.#sockets.push(socket);
      // That it is gone shows in the tree.
      socket.on('error', () => undefined);
      socket.pipe(socket);
    });
  }

  static async start(): Promise<Peer> {
    const peer = new Peer();
    await new Promise<void>((resolve) => {
      peer.#server.listen(0, '127.0.0.1', resolve);
    });
    return peer;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }
}
