import { mkdirSync, readdirSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { dump } from '../engine/dump.js';
import type { CheckpointOptions, RestoreRequest } from '../engine/options.js';
import { restore } from '../engine/restore.js';
import { call, hook } from '../kernel/ffi.js';

/**
 * One dump or restore that meets with a fault. Waits for a line of JSON on stdin (so that it can be started ahead of
 * time), does it, and writes a line of JSON when it lives to.
 */
export interface FaultOrder {
  readonly what: 'dump' | 'restore';
  readonly pid: number;
  readonly directory: string;
  readonly afterwards: 'kill' | 'run' | 'stop';
  readonly durable: boolean;
  readonly fault: Fault;
  /** The program's counters are copied here while everybody stands still, just before the commit. */
  readonly stateFile: string | undefined;
  readonly frozenStateFile: string | undefined;
  /** Says which phase has been reached. */
  readonly phaseFile: string | undefined;
}

/** Who is hit: this process, or the helper that was started as the first, second, … */
export type Victim = 'controller' | number;

export type Fault =
  | { readonly kind: 'none' }
  /** Before the `at`-th kernel call since the first touch (0 the first). */
  | { readonly kind: 'kill'; readonly victim: Victim; readonly at: number; readonly signal: number }
  | { readonly kind: 'throw'; readonly at: number }
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

/** A thread of its own that kills at a time that has nothing to do with what the main thread is doing. */
const KILLER = `
const { workerData } = require('node:worker_threads');
const { readdirSync, readFileSync } = require('node:fs');
const cell = new Int32Array(workerData.shared);
Atomics.store(cell, 1, 1);
Atomics.notify(cell, 1);
Atomics.wait(cell, 0, 0);
const until = process.hrtime.bigint() + BigInt(workerData.after_us) * 1000n;
while (process.hrtime.bigint() < until);
let pid = process.pid;
if (workerData.victim !== 'controller') {
  const helpers = readdirSync('/proc/self/task')
    .flatMap((tid) => readFileSync('/proc/self/task/' + tid + '/children', 'utf8').split(' '))
    .filter((word) => word !== '').map(Number).sort((a, b) => a - b);
  pid = helpers[workerData.victim];
}
if (pid !== undefined) try { process.kill(pid, workerData.signal); } catch {}
`;

const order = JSON.parse(readLine()) as FaultOrder;
let calls = 0;
let isTouched = false;
let start = 0n;
let met: string | undefined;
let sameWaits = 0;
const phases: string[] = [];
const shared = new SharedArrayBuffer(8);
const { fault } = order;

if (fault.kind === 'kill at') {
  const { victim, after_us, signal } = fault;
  new Worker(KILLER, { eval: true, workerData: { shared, victim, after_us, signal } }).unref();
  Atomics.wait(new Int32Array(shared), 1, 0);
}

hook.beforeCall = (name) => {
  if (!isTouched) return;
  // Whoever polls for a stop does so a different number of times each time.
  sameWaits = name === 'wait4' || name === 'waitid' ? sameWaits + 1 : 0;
  if (sameWaits > MOST_WAITS) return;
  const at = calls++;
  if (met !== undefined || (fault.kind !== 'kill' && fault.kind !== 'throw') || at !== fault.at) return;
  met = name;
  if (fault.kind === 'throw') throw new Error(`injected before ${name}`);
  strike(fault.victim, fault.signal);
};
const MOST_WAITS = 24;

function strike(victim: Victim, signal: number): void {
  const pid = victim === 'controller' ? process.pid : helpers()[victim];
  if (pid !== undefined) call('kill', pid, signal);
}

/** Children of this process in the order of their start. */
function helpers(): number[] {
  return readdirSync('/proc/self/task')
    .flatMap((tid) => readFileSync(`/proc/self/task/${tid}/children`, 'utf8').split(' '))
    .filter((word) => word !== '')
    .map(Number)
    .sort((a, b) => a - b);
}

function phase(name: string): void {
  if (order.phaseFile !== undefined) writeFileSync(order.phaseFile, name);
  phases.push(`${name} ${calls}`);
  if (name === FIRST_TOUCH[order.what]) {
    isTouched = true;
    start = process.hrtime.bigint();
    Atomics.store(new Int32Array(shared), 0, 1);
    Atomics.notify(new Int32Array(shared), 0);
  }
  if (fault.kind === 'throw in phase' && fault.phase === name && met === undefined) {
    met = name;
    throw new Error(`injected in phase ${name}`);
  }
}

function noteState(): void {
  const { stateFile, frozenStateFile } = order;
  if (stateFile !== undefined && frozenStateFile !== undefined)
    writeFileSync(frozenStateFile, readFileSync(stateFile));
}

const common = { directory: order.directory, shellJob: false, external: [], timeout_ms: 5000 } as const;

function checkpointOptions(): CheckpointOptions {
  return {
    ...common,
    pid: order.pid,
    afterwards: order.afterwards,
    linkRemap: false,
    ghostLimit: 1 << 20,
    leaveRunning: order.afterwards === 'run',
    fileLocks: true,
    tcpEstablished: false,
    checksums: false,
    durable: order.durable,
    rehearsed: false,
    overwrite: true,
    hooks: { phase, beforeCommit: noteState },
  };
}

function restoreRequest(): RestoreRequest {
  return {
    ...common,
    inheritFds: new Map(),
    verify: false,
    trust: true,
    sibling: false,
    leaveStopped: false,
    hooks: { phase },
  };
}

function readLine(): string {
  const bytes = Buffer.alloc(64 * 1024);
  let length = 0;
  while (!bytes.subarray(0, length).includes(10)) {
    const count = readSync(0, bytes, length, bytes.length - length, null);
    if (count === 0) process.exit(0);
    length += count;
  }
  return bytes.toString('utf8', 0, length);
}

let error: string | undefined;
try {
  if (order.what === 'dump') {
    mkdirSync(order.directory, { recursive: true });
    dump(checkpointOptions());
  } else restore(restoreRequest());
} catch (thrown) {
  error = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
}
isTouched = false;
const duration_us = Number((process.hrtime.bigint() - start) / 1000n);
const answer: FaultAnswer = { calls, duration_us, error, call: met, phases };
writeSync(1, `${JSON.stringify(answer)}\n`);
// A controller that lives on must have let go of everything by itself, not by its end.
readSync(0, Buffer.alloc(1), 0, 1, null);
