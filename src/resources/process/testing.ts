import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { createMessage } from '../../image/codec.js';
import { ImageReader } from '../../image/reader.js';
import { ImageWriter } from '../../image/writer.js';
import { type Mapping, readMaps } from '../../kernel/procfs/maps.js';
import { readStat } from '../../kernel/procfs/stat.js';
import { readStatus } from '../../kernel/procfs/status.js';
import { listTids } from '../../kernel/procfs/tree.js';
import * as ptrace from '../../kernel/ptrace.js';
import { isEventStop, waitFor } from '../../kernel/wait.js';
import { type Borrowed, borrow, giveBack } from '../../tape/borrow.js';
import { findGadgets } from '../../tape/gadgets.js';
import { type Actor, playOne } from '../../tape/play.js';
import { Tape } from '../../tape/tape.js';
import type { DumpContext, Process, RestoreTask, Thread } from '../contract.js';
import { newCore } from './core.js';
import { dumpExtendedRegisters, dumpRegisters, inquire, taskStates } from './index.js';
import { cureForThaw, registersForImage } from './interrupted.js';
import { outsideCriticalSection } from './rseq.js';

/** For the tests of this folder: programs to freeze, frozen threads, and images of them. */

const INSIDE = 'STASIS_TEST_INSIDE';

/** Tests that trace run in a pid namespace of their own, where they are alone and nothing outlives them. */
export function isInside(): boolean {
  return process.env[INSIDE] === '1';
}

/** Run a test file again inside; answers its exit status and output. */
export function runInside(url: string): { status: number | null; output: string } {
  const arguments_ = [
    '--pid',
    '--fork',
    '--kill-child',
    '--mount-proc',
    process.execPath,
    fileURLToPath(url),
  ];
  // Without it the inner node:test believes to be run by the outer one, and reports in a format for programs.
  const { NODE_TEST_CONTEXT: _, ...environment } = process.env;
  const result = spawnSync('unshare', arguments_, {
    env: { ...environment, [INSIDE]: '1' },
    encoding: 'utf8',
  });
  return { status: result.status, output: `${result.stdout}${result.stderr}` };
}

/** A python program that talks: `said` waits for its next line, `tell` sends it one. */
export class Subject implements Disposable {
  readonly pid: number;
  readonly #directory: string;
  readonly #out: number;
  readonly #in: number;
  #rest = '';

  constructor(code: string, prefix = '') {
    this.#directory = mkdtempSync(path.join(tmpdir(), 'stasis-subject-'));
    const [input, output] = ['in', 'out'].map((name) => path.join(this.#directory, name));
    // A child of the shell, not of ours: libuv would wait for it and swallow its stops.
    const script =
      'mkfifo "$2" "$3"; (exec setsid $4 /usr/bin/python3 -u -c "$1" <>"$2" >"$3" 2>&1) >/dev/null 2>&1 & echo $!';
    const { stdout } = spawnSync('sh', ['-c', script, 'sh', code, input ?? '', output ?? '', prefix], {
      encoding: 'utf8',
    });
    this.pid = Number(stdout);
    this.#out = openSync(output ?? '', 'r');
    this.#in = openSync(input ?? '', 'w');
  }

  said(): string {
    const buffer = Buffer.alloc(4096);
    for (;;) {
      const end = this.#rest.indexOf('\n');
      if (end >= 0) {
        const line = this.#rest.slice(0, end);
        this.#rest = this.#rest.slice(end + 1);
        return line;
      }
      const count = readSync(this.#out, buffer, 0, buffer.length, null);
      if (count === 0) throw new Error(`the subject has ended: ${this.#rest}`);
      this.#rest += buffer.toString('utf8', 0, count);
    }
  }

  tell(line: string): void {
    writeSync(this.#in, `${line}\n`);
  }

  /** Wait until a thread sleeps in this system call. */
  [Symbol.dispose](): void {
    try {
      process.kill(this.pid, 'SIGKILL');
    } catch {
      // It has ended by itself.
    }
    closeSync(this.#out);
    closeSync(this.#in);
    rmSync(this.#directory, { recursive: true });
  }
}

export function lookAtProcess(pid: number): Process {
  const stat = readStat(pid);
  const state = stat.state === 'T' ? 'stopped' : stat.state === 'Z' ? 'zombie' : 'alive';
  const insidePid = readStatus(pid).nsPid.at(-1) ?? pid;
  const draft = { pid, insidePid, parent: undefined, children: [], threads: [] as Thread[], state, stat };
  const found = draft as unknown as Process;
  for (const tid of listTids(pid)) {
    const status = readStatus(pid, { tid });
    const isLeader = tid === pid;
    const insideTid = status.nsPid.at(-1) ?? tid;
    const core = newCore(found, isLeader);
    found.threads.push({ tid, insideTid, process: found, isLeader, status, core, frozen: undefined });
  }
  const [leader] = found.threads;
  return Object.assign(found, { leader });
}

/** Seize and stop every thread of a process, and record its registers. */
export function freezeProcess(pid: number, options = 0): Process {
  const found = lookAtProcess(pid);
  for (const thread of found.threads) freezeThread(thread, options);
  return found;
}

function freezeThread(thread: Thread, options: number): void {
  ptrace.seize(thread.tid, options);
  ptrace.interrupt(thread.tid);
  for (;;) {
    const status = waitFor(thread.tid);
    if (isEventStop(status)) break;
    if (status.kind !== 'stopped') throw new Error(`thread ${thread.tid} is gone`);
    ptrace.resume(thread.tid, status.event === 0 ? status.signal : 0);
  }
  recordFrozen(thread);
}

/** A thread that is stopped already. */
export function recordFrozen(thread: Thread): void {
  const { tid } = thread;
  thread.status = readStatus(thread.process.pid, { tid });
  const rseq = ptrace.getRseq(tid);
  const registers = cureForThaw(outsideCriticalSection(tid, ptrace.getRegisters(tid), rseq));
  ptrace.setRegisters(tid, registers);
  const home = registersForImage(registers, { tid });
  thread.frozen = { registers, home, mask: ptrace.getSignalMask(tid), xstate: ptrace.getXstate(tid), rseq };
}

export function thaw(frozen: Process): void {
  for (const { tid } of frozen.threads) ptrace.detach(tid);
}

const WORKSPACE = 0x1000_0000_0000n;
const WORKSPACE_SIZE = 256 * 1024;

/** Borrow the threads of a frozen process, the chains at the low end of its stack. */
export function borrowAll({ pid, threads }: Process): Borrowed[] {
  const maps = readMaps(pid);
  const gadgets = findGadgets(pid, maps);
  const stack = maps.find((mapping: Mapping) => mapping.path === '[stack]');
  if (gadgets === undefined || stack === undefined) throw new Error('no gadgets or no stack');
  return borrow(
    threads.map((thread, index) => {
      const { frozen } = thread;
      if (frozen === undefined) throw new Error('not frozen');
      return {
        tid: thread.tid,
        inside: { pid: thread.process.insidePid, tid: thread.insideTid },
        name: `thread ${index}`,
        ...frozen,
        gadgets,
        workspace: { address: WORKSPACE + BigInt(index * WORKSPACE_SIZE), size: WORKSPACE_SIZE },
        chain: stack.start + BigInt(index * 16384),
        stopSignal: 23,
      };
    }),
  );
}

export function freshContext(writer: ImageWriter, processes: readonly Process[]): DumpContext {
  return {
    writer,
    processes,
    files: undefined as never,
    memfds: undefined as never,
    options: undefined as never,
    inventory: { dumpCriuRunId: 'test', networkLockMethod: 0, tcpClose: false },
    keep: () => {},
    retry: ({ object, reason }) => {
      throw new Error(`refused for now: ${object}: ${reason}`);
    },
    refuse: ({ object, reason }) => {
      throw new Error(`refused: ${object}: ${reason}`);
    },
  };
}

/** Everything the states have to say about frozen threads that can play tapes. */
export function dumpStates(actors: ReadonlyMap<Thread, Actor>, context: DumpContext): void {
  for (const [thread, actor] of actors) {
    dumpRegisters(thread);
    dumpExtendedRegisters(thread);
    const tape = new Tape(`state of ${actor.name}`);
    const answers = [];
    for (const state of taskStates) {
      if (state.scope === 'process' && !thread.isLeader) continue;
      state.read?.(thread, context);
      tape.about(state.name);
      const answer = state.ask?.(tape, thread);
      if (answer !== undefined) answers.push(answer);
    }
    const played = playOne(actor, tape);
    for (const answer of answers) answer(played, thread, context);
    inquire(taskStates, [thread])(context);
    for (const state of taskStates)
      if (state.scope === 'thread' || thread.isLeader) state.note?.(thread, context);
  }
  for (const state of taskStates) state.write?.(context);
}

/** A whole image of frozen processes, as far as this folder makes one; read again. */
export class TaskImage implements Disposable {
  readonly reader: ImageReader;
  readonly #directory: string;

  constructor(dumps: readonly { process: Process; actors: ReadonlyMap<Thread, Actor> }[]) {
    this.#directory = mkdtempSync(path.join(tmpdir(), 'stasis-image-'));
    using writer = ImageWriter.create(this.#directory);
    const context = freshContext(
      writer,
      dumps.map((dump) => dump.process),
    );
    dumpStates(new Map(dumps.flatMap(({ actors }) => [...actors])), context);
    writer.write(
      'pstree',
      null,
      dumps.map(({ process: { insidePid: pid, threads } }) =>
        createMessage('pstree', {
          pid,
          ppid: 0,
          pgid: pid,
          sid: pid,
          threads: threads.map(({ insideTid }) => insideTid),
        }),
      ),
    );
    for (const {
      process: { threads },
    } of dumps)
      for (const { core, insideTid } of threads) writer.write('core', insideTid, [core]);
    writer.commit(createMessage('inventory', { imgVersion: 2 }), { durable: false });
    this.reader = ImageReader.open(this.#directory);
  }

  task(pid: number, tid = pid): RestoreTask {
    const core = this.reader.readOne('core', tid);
    const leaderCore = this.reader.readOne('core', pid);
    return { pid, tid, isLeader: pid === tid, core, leaderCore, reader: this.reader, name: `pid ${pid}` };
  }

  [Symbol.dispose](): void {
    this.reader[Symbol.dispose]();
    rmSync(this.#directory, { recursive: true });
  }
}

/** Freeze a process, save its states, and let it go on. */
export function imageOf(pid: number): TaskImage {
  const found = freezeProcess(pid);
  try {
    const borrowed = borrowAll(found);
    try {
      const actors = new Map<Thread, Actor>();
      found.threads.forEach((thread, index) => {
        const actor = borrowed[index]?.actor;
        if (actor !== undefined) actors.set(thread, actor);
      });
      return new TaskImage([{ process: found, actors }]);
    } finally {
      giveBack(borrowed);
    }
  } finally {
    thaw(found);
  }
}

/** Play what restores a task's states on a stem that stands for it, and settle the rest. */
export function restoreStates(task: RestoreTask, actor: Actor): void {
  const tape = new Tape(`states of ${task.name}`);
  for (const state of taskStates) {
    if (state.scope === 'process' && !task.isLeader) continue;
    tape.about(state.name);
    state.restore?.(task, tape);
  }
  playOne(actor, tape);
  for (const state of taskStates)
    if (state.scope === 'thread' || task.isLeader) state.settle?.(task, actor.tid);
}
