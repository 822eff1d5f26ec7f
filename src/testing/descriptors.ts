import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileKinds } from '../engine/registry.js';
import { createMessage, type file_entry, ImageReader, ImageWriter } from '../image/index.js';
import { call } from '../kernel/ffi.js';
import { readDescriptors } from '../kernel/procfs/descriptors.js';
import { readStat } from '../kernel/procfs/stat.js';
import { readStatus } from '../kernel/procfs/status.js';
import type {
  DumpContext,
  DumpOptions,
  Kept,
  Process,
  RestoreOptions,
  Thread,
} from '../resources/contract.js';
import { openPidfd, takeDescriptor } from '../resources/description/calls.js';
import { StemHolder, StemTaker } from '../resources/description/index.js';
import { restoreFs } from '../resources/file/fs.js';
import { checkFiles, DescriptorCollector, DescriptorSurvey, restoreTable } from '../resources/file/index.js';
import { attachAll } from '../resources/file/table.js';
import { type Actor, playOne } from '../tape/play.js';
import { startStem } from '../tape/stem.js';
import { deferred, Tape } from '../tape/tape.js';

/**
 * For tests: a Python program sets up descriptors, they are saved while it is stopped, and rebuilt in a stem. All of it
 * in a pid namespace of its own, which ends with the test.
 */

/** Runs a test file inside a pid namespace; answers whether this already is inside. */
export function inNamespace(url: string): boolean {
  if (process.env.STASIS_TEST_INSIDE === url) return true;
  const args = ['--pid', '--fork', '--kill-child', '--mount-proc', process.execPath, new URL(url).pathname];
  const env: NodeJS.ProcessEnv = { ...process.env, STASIS_TEST_INSIDE: url };
  delete env.NODE_TEST_CONTEXT;
  const result = spawnSync('unshare', args, { env, encoding: 'utf8', timeout: 120_000 });
  if (process.env.STASIS_TEST_VERBOSE !== undefined) process.stdout.write(result.stdout);
  if (result.status !== 0) throw new Error(`${result.stdout}\n${result.stderr}`);
  return false;
}

export const options: DumpOptions = {
  shellJob: false,
  linkRemap: false,
  ghostLimit: 1 << 20,
  external: [],
  leaveRunning: false,
  fileLocks: true,
  tcpEstablished: false,
};

/** A program that has stopped itself after its set-up; `directory` is its own, and its working directory. */
export class Program implements Disposable {
  readonly pid: number;
  readonly directory: string;
  readonly processes: Process[];

  /** `code` is Python; `os`, `fcntl`, `socket`, `D` (the directory) are there. Descriptors 0–2 are /dev/null. */
  static async start(code: string): Promise<Program> {
    const directory = mkdtempSync('/tmp/stasis-file-');
    const script = path.join(directory, '.program.py');
    writeFileSync(
      script,
      `import os,fcntl,socket,select,signal,sys\nD=${JSON.stringify(directory)}\nos.chdir(D)\n${code}\nos.kill(os.getpid(),signal.SIGSTOP)\nsignal.pause()\n`,
    );
    const child = spawn('/usr/bin/python3', [script], { stdio: ['ignore', 'ignore', 'pipe'] });
    let errors = '';
    child.stderr?.on('data', (chunk) => {
      errors += String(chunk);
    });
    const { pid } = child;
    if (pid === undefined) throw new Error('no python3');
    while (readStat(pid).state !== 'T') {
      if (child.exitCode !== null || readStat(pid).state === 'Z')
        throw new Error(`the program ended: ${errors}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return new Program(pid, directory);
  }

  constructor(pid: number, directory: string) {
    this.pid = pid;
    this.directory = directory;
    this.processes = treeOf(pid);
  }

  end(): void {
    for (const member of [...this.processes].reverse()) call('kill', member.pid, 9);
  }

  [Symbol.dispose](): void {
    this.end();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Processes as a dump has them. */
export function treeOf(root: number): Process[] {
  const found: Process[] = [];
  const visit = (pid: number, parent: Process | undefined): void => {
    const stat = readStat(pid);
    const made = {
      pid,
      insidePid: pid,
      parent,
      children: [],
      threads: [] as Thread[],
      state: stat.state === 'Z' ? 'zombie' : 'stopped',
      stat,
    } as unknown as Process & { leader: Thread };
    const leader = {
      tid: pid,
      insideTid: pid,
      process: made,
      isLeader: true,
      status: readStatus(pid),
      core: createMessage('core', {}),
      frozen: undefined,
    };
    made.leader = leader;
    made.threads.push(leader);
    found.push(made);
    parent?.children.push(made);
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
    for (const child of children === '' ? [] : children.split(' ')) visit(Number(child), made);
  };
  visit(root, undefined);
  return found;
}

/** What is to be asked of the program, as it is now. */
export function surveyOf({ processes }: Pick<Program, 'processes'>): DescriptorSurvey {
  const survey = new DescriptorSurvey();
  checkFiles(processes, fileKinds, () => undefined, options, survey);
  survey.prepare();
  return survey;
}

/** Save what the program has open (but its stderr pipe), as an image in its directory. */
export function save(
  program: Pick<Program, 'processes' | 'directory'>,
  changed: Partial<DumpOptions> = {},
): string {
  using survey = surveyOf(program);
  return saveAsSurveyed(program, survey, changed);
}

/** As `save`, with a survey of before, or none. */
export function saveAsSurveyed(
  program: Pick<Program, 'processes' | 'directory'>,
  survey: DescriptorSurvey | undefined,
  changed: Partial<DumpOptions> = {},
): string {
  const directory = path.join(program.directory, '.image');
  using writer = ImageWriter.create(directory);
  const files = new DescriptorCollector(fileKinds, (member) => member.pid, survey);
  const kept: Kept[] = [];
  const context: DumpContext = {
    writer,
    processes: program.processes,
    files,
    memfds: { add: () => 1, recognises: () => false },
    options: { ...options, ...changed },
    refuse: (refusal) => {
      throw new Error(`${refusal.object}: ${refusal.reason}`);
    },
    keep: (each) => {
      kept.push(each);
    },
    inventory: { dumpCriuRunId: 'test', networkLockMethod: 0, tcpClose: false },
    retry: (refusal) => {
      throw new Error(`${refusal.object}: ${refusal.reason}`);
    },
  };
  files.begin(context);
  files.dump();
  files.write();
  for (const each of kept.reverse()) each.release('goes on');
  writer.commit(createMessage('inventory', { imgVersion: 2 }), { durable: false });
  return directory;
}

/** A stem per process of the image that has the descriptors. */
export class Restored {
  readonly tasks = new Map<number, Actor>();
  readonly holder: StemHolder;

  constructor(directory: string, pids: readonly number[], changed: Partial<RestoreOptions> = {}) {
    const reader = ImageReader.open(directory);
    this.holder = new StemHolder(reader, {
      shellJob: false,
      inheritFds: new Map(),
      external: [],
      verify: false,
      ...changed,
    });
    const { holder } = this;
    const users = pids.map((pid) => ({
      descriptors: reader.read('fdinfo', pid),
      fs: reader.readOptional('fs', pid)?.[0],
      mm: undefined,
    }));
    const all = reader.read('files');
    holder.openAll(fileKinds, all);
    holder.turnToLast();
    holder.watchAll(fileKinds, all);
    holder.controller.value = process.pid;
    for (const acts of holder.acts) acts.begin?.();
    const stem = newStem('holder');
    playOne(stem, holder.openings);
    holder.closeBrought();
    playOne(stem, holder.late);
    const files = new Map<number, file_entry>(all.map((entry) => [entry.id, entry]));
    users.forEach((user, index) => {
      const actor = newStem('task');
      const tape = new Tape('task');
      const pid = deferred('holder');
      pid.value = stem.tid;
      const taker = new StemTaker(tape, holder, pid);
      if (user.fs !== undefined) restoreFs(user.fs, tape, taker);
      restoreTable(user.descriptors, holder.waiting, tape, taker);
      attachAll(fileKinds, { ...user, pid: pids[index] ?? 0 }, files, tape, holder, () => true);
      playOne(actor, tape);
      this.tasks.set(pids[index] ?? 0, actor);
    });
    playOne(stem, holder.last);
    for (const acts of holder.acts) acts.resume?.();
    playOne(stem, holder.resume);
    for (const acts of holder.acts) acts.end?.();
    call('kill', stem.tid, 9);
  }

  /** The stem that stands for a process of the image. */
  of(pid: number): Actor {
    const actor = this.tasks.get(pid);
    if (actor === undefined) throw new Error(`no stem for ${pid}`);
    return actor;
  }

  end(): void {
    for (const { tid } of this.tasks.values()) call('kill', tid, 9);
  }
}

function newStem(name: string): Actor {
  const sliceSize = 16 << 20;
  const workspace = { address: 0x5000_0000_0000n, size: BigInt(sliceSize + 8192) };
  for (let attempt = 1; ; attempt++) {
    try {
      return startStem({ workspace, sliceSize, name });
    } catch (error) {
      if (attempt === 50) throw error;
    }
  }
}

/** What can be compared of a descriptor table: link, flags and offset by number. */
export function tableOf(pid: number): Record<number, string> {
  const table: Record<number, string> = {};
  for (const { fd, link, info } of readDescriptors(pid))
    table[fd] =
      `${link.replace(/\[\d+\]$/, '[N]').replace(/#\d+/, '#N')} 0${info.flags.toString(8)} ${info.pos}`;
  return table;
}

/** One read(2) through a task's descriptor, which moves its offset. */
export function readThrough(pid: number, fd: number, length = 1 << 16): Buffer {
  using pidfd = openPidfd(pid);
  using taken = takeDescriptor(pidfd.fd, fd, 'test');
  const buffer = Buffer.alloc(length);
  return buffer.subarray(0, readSync(taken.fd, buffer, 0, length, null));
}

export const QUIET = 'os.dup2(os.open("/dev/null",os.O_WRONLY),2)\nos.closerange(3,100000)\n';

/** Save a program, rebuild its descriptors in stems, and compare their tables; then `check`. */
export async function roundTrip(
  code: string,
  check: (before: Program, after: Restored) => void = () => {},
  between: (program: Program) => void = () => {},
): Promise<void> {
  using program = await Program.start(QUIET + code);
  const pids = program.processes.filter(({ state }) => state !== 'zombie').map(({ pid }) => pid);
  const directory = save(program, { linkRemap: true });
  const before = pids.map((pid) => tableOf(pid));
  between(program);
  const restored = new Restored(directory, pids);
  try {
    pids.forEach((pid, index) => {
      assert.deepEqual(tableOf(restored.of(pid).tid), before[index]);
    });
    check(program, restored);
  } finally {
    restored.end();
  }
}

export function sameDescription(a: { pid: number; fd: number }, b: { pid: number; fd: number }): boolean {
  return call('kcmp', a.pid, b.pid, 0, a.fd, b.fd) === 0;
}
