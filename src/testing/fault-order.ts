import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import type { SyscallName } from '../abi/syscalls.js';
import { dump } from '../engine/dump.js';
import type { CheckpointOptions, RestoreRequest } from '../engine/options.js';
import { restore } from '../engine/restore.js';
import { call, hook } from '../kernel/ffi.js';

/** One dump or restore that meets with a fault. */
export interface FaultOrder {
  readonly what: 'dump' | 'restore';
  readonly pid: number;
  readonly directory: string;
  readonly afterwards: 'kill' | 'run' | 'stop';
  readonly durable: boolean;
  readonly fault: Fault;
  /** The image goes out on descriptor 3; answers come on descriptor 4. */
  readonly stream?: { readonly answers: boolean };
  /** No trial: the process that forks others does it itself, to compile the code. */
  readonly isWarmUp: boolean;
  /** The program's counters are copied here while everybody stands still, just before the commit. */
  readonly stateFile: string | undefined;
  readonly frozenStateFile: string | undefined;
  /** Says which phase has been reached, and where in it the fault was done. */
  readonly phaseFile: string | undefined;
}

/** Who is hit: the process that works, the helper it started as the first, second, …, or a copy of a task of the tree. */
export type Victim = 'controller' | 'copy' | number;

export type Fault =
  | { readonly kind: 'none' }
  /** Before the `at`-th kernel call since the first touch (0 the first), or since the beginning of `phase`. */
  | {
      readonly kind: 'kill';
      readonly victim: Victim;
      readonly at: number;
      readonly phase?: string;
      readonly signal: number;
    }
  | { readonly kind: 'throw'; readonly at: number; readonly phase?: string }
  | { readonly kind: 'throw in phase'; readonly phase: string }
  /** So many microseconds after the first touch. */
  | { readonly kind: 'kill at'; readonly victim: Victim; readonly after_us: number; readonly signal: number };

export interface FaultAnswer {
  readonly calls: number;
  readonly duration_us: number;
  readonly error: string | undefined;
  /** The call at which the fault was done. */
  readonly call: string | undefined;
  readonly phases: readonly string[];
}

/** From this phase on calls are counted. */
const FIRST_TOUCH = { dump: 'freeze', restore: 'holder' } as const;

/** Carries out one order in this process, once. */
class Work {
  readonly #order: FaultOrder;
  /** Called at the first touch. */
  readonly #touched: () => void;
  readonly #phases: string[] = [];
  #calls = 0;
  #phaseName = '';
  /** The number of its first call. */
  #phaseStart = 0;
  #isTouched = false;
  #start = 0n;
  #met: string | undefined;
  #sameWaits = 0;

  constructor(order: FaultOrder, touched: () => void) {
    this.#order = order;
    this.#touched = touched;
  }

  run(): FaultAnswer {
    hook.beforeCall = (name) => this.#beforeCall(name);
    let error: string | undefined;
    try {
      if (this.#order.what === 'dump') {
        if (this.#order.stream === undefined) mkdirSync(this.#order.directory, { recursive: true });
        dump(this.#checkpointOptions());
      } else restore(this.#restoreRequest());
    } catch (thrown) {
      error = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
    }
    hook.beforeCall = undefined;
    const duration_us = Number((process.hrtime.bigint() - this.#start) / 1000n);
    return { calls: this.#calls, duration_us, error, call: this.#met, phases: this.#phases };
  }

  #beforeCall(name: SyscallName): void {
    if (!this.#isTouched) return;
    // Whoever polls for a stop does so a different number of times each time.
    this.#sameWaits = name === 'wait4' || name === 'waitid' ? this.#sameWaits + 1 : 0;
    if (this.#sameWaits > MOST_WAITS) return;
    const { fault } = this.#order;
    const at = this.#calls++;
    if (this.#met !== undefined || (fault.kind !== 'kill' && fault.kind !== 'throw')) return;
    if (fault.phase === undefined ? at !== fault.at : !this.#isAt(fault.phase, at - fault.at)) return;
    this.#met = name;
    this.#notePhase(`${this.#phaseName}+${at - this.#phaseStart} ${name}`);
    if (fault.kind === 'throw') throw new Error(`injected before ${name}`);
    const pid = victimOf(process.pid, fault.victim, this.#order.pid);
    if (pid !== undefined) call('kill', pid, fault.signal);
  }

  #isAt(phase: string, start: number): boolean {
    return this.#phaseName === phase && this.#phaseStart === start;
  }

  #notePhase(text: string): void {
    const { phaseFile } = this.#order;
    if (phaseFile !== undefined) writeFileSync(phaseFile, text);
  }

  #phase(name: string): void {
    const { what, fault } = this.#order;
    this.#notePhase(name);
    this.#phaseName = name;
    this.#phaseStart = this.#calls;
    this.#phases.push(`${name} ${this.#calls}`);
    if (name === FIRST_TOUCH[what]) {
      this.#isTouched = true;
      this.#start = process.hrtime.bigint();
      this.#touched();
    }
    if (fault.kind === 'throw in phase' && fault.phase === name && this.#met === undefined) {
      this.#met = name;
      throw new Error(`injected in phase ${name}`);
    }
  }

  #noteState(): void {
    const { stateFile, frozenStateFile } = this.#order;
    if (stateFile !== undefined && frozenStateFile !== undefined)
      writeFileSync(frozenStateFile, readFileSync(stateFile));
  }

  #checkpointOptions(): CheckpointOptions {
    const { pid, directory, afterwards, durable } = this.#order;
    return {
      ...COMMON,
      directory,
      to: this.#streamPlace(),
      pid,
      afterwards,
      linkRemap: true,
      ghostLimit: 1 << 20,
      leaveRunning: afterwards === 'run',
      fileLocks: true,
      tcpEstablished: true,
      checksums: false,
      durable,
      rehearsed: false,
      overwrite: true,
      hooks: { phase: (name) => this.#phase(name), beforeCommit: () => this.#noteState() },
    };
  }

  #streamPlace(): CheckpointOptions['to'] {
    const { stream } = this.#order;
    if (stream === undefined) return undefined;
    const answers = stream.answers ? ANSWERS_FD : undefined;
    return { kind: 'stream', fd: STREAM_FD, answers, stall_ms: PATIENCE_MS, ready_ms: PATIENCE_MS };
  }

  #restoreRequest(): RestoreRequest {
    return {
      ...COMMON,
      directory: this.#order.directory,
      inheritFds: new Map(),
      verify: false,
      trust: true,
      sibling: false,
      leaveStopped: false,
      hooks: { phase: (name) => this.#phase(name) },
    };
  }
}

const MOST_WAITS = 24;
const STREAM_FD = 3;
const ANSWERS_FD = 4;
const PATIENCE_MS = 1500;
const COMMON = { shellJob: false, external: [], timeout_ms: 5000 } as const;

export function carryOut(order: FaultOrder, touched: () => void): FaultAnswer {
  return new Work(order, touched).run();
}

/** Of the process `controller` that works on the tree of `root`; undefined when there is none (any more). */
export function victimOf(controller: number, victim: Victim, root: number): number | undefined {
  if (victim === 'controller') return controller;
  if (victim === 'copy') return copiesOf(controller, root)[0];
  const children = readdirSync(`/proc/${controller}/task`)
    .flatMap((tid) => readFileSync(`/proc/${controller}/task/${tid}/children`, 'utf8').split(' '))
    .filter((word) => word !== '')
    .map(Number);
  return children.sort((a, b) => a - b)[victim];
}

/** Whom it traces of init's children. */
function copiesOf(controller: number, root: number): number[] {
  const found: number[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name) || Number(name) === root) continue;
    try {
      const status = readFileSync(`/proc/${name}/status`, 'utf8');
      if (status.includes(`\nTracerPid:\t${controller}\n`) && status.includes('\nPPid:\t1\n'))
        found.push(Number(name));
    } catch {
      // It has ended.
    }
  }
  return found;
}
