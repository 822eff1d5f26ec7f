import { readFileSync, readSync, writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { MADV_DOFORK, MAP_ANONYMOUS, MAP_SHARED, PROT_READ, PROT_WRITE } from '../abi/mman.js';
import { call, viewOf } from '../kernel/ffi.js';
import { scratch } from '../kernel/memory.js';
import { carryOut, type Fault, type FaultOrder, victimOf } from './fault-order.js';

/**
 * Carries out orders, which are lines of JSON on stdin. As `once` it does one itself, in a process like any of Node's, with
 * threads besides the one that works. As `serve` it forks a process for each: that takes 10 ms, where a start takes 300. V8
 * must have no threads then, and its heap has to be given to the children (it asks the kernel not to). Orders to warm up it
 * carries out itself, so that its children find the code compiled.
 */

type Instant = Extract<Fault, { kind: 'kill at' }>;

/** A thread of its own that kills at a time that has nothing to do with what the main thread is doing. */
const KILLER = `
const { workerData } = require('node:worker_threads');
const { shared, module, victim } = workerData;
const cell = new Int32Array(shared);
const itself = { victimOf: (pid) => pid };
Promise.resolve(victim === 'controller' ? itself : import(module)).then(({ victimOf }) => {
  Atomics.store(cell, 1, 1);
  Atomics.notify(cell, 1);
  Atomics.wait(cell, 0, 0);
  const until = process.hrtime.bigint() + BigInt(workerData.after_us) * 1000n;
  while (process.hrtime.bigint() < until);
  const pid = victimOf(process.pid, victim, workerData.root);
  if (pid !== undefined) try { process.kill(pid, workerData.signal); } catch {}
});
`;

function say(message: object): void {
  writeSync(1, `${JSON.stringify(message)}\n`);
}

/** The next line; undefined at the end. */
function readLine(): string | undefined {
  const bytes = Buffer.alloc(64 * 1024);
  let length = 0;
  while (!bytes.subarray(0, length).includes(10)) {
    const count = readSync(0, bytes, length, bytes.length - length, null);
    if (count === 0) return undefined;
    length += count;
  }
  return bytes.toString('utf8', 0, length).trim();
}

/** A process that lives on must have let go of everything by itself, not by its end. */
function report(order: FaultOrder, touched: () => void): void {
  say(carryOut(order, touched));
  readSync(0, Buffer.alloc(1), 0, 1, null);
}

function once(): void {
  const line = readLine();
  if (line === undefined) return;
  const order = JSON.parse(line) as FaultOrder;
  const cell = new Int32Array(new SharedArrayBuffer(8));
  if (order.fault.kind === 'kill at') {
    const { victim, after_us, signal } = order.fault;
    const module = new URL('./fault-order.js', import.meta.url).href;
    const workerData = { shared: cell.buffer, module, root: order.pid, victim, after_us, signal };
    new Worker(KILLER, { eval: true, workerData }).unref();
    Atomics.wait(cell, 1, 0);
  }
  report(order, () => {
    Atomics.store(cell, 0, 1);
    Atomics.notify(cell, 0);
  });
}

const ANONYMOUS = /^([0-9a-f]+)-([0-9a-f]+) \S+ 00000000 00:00 0/gm;

const PASSES = 20;

/** All of the heap goes to the child: what was mapped since the last look, by the looking itself, has to be looked at too. */
function fork(): number {
  globalThis.gc?.({ type: 'minor' });
  let seen = '';
  for (let pass = 0; pass < PASSES; pass++) {
    const maps = readFileSync('/proc/self/maps', 'latin1');
    if (maps === seen) break;
    seen = maps;
    for (const [, start, end] of maps.matchAll(ANONYMOUS)) {
      const from = BigInt(`0x${start}`);
      call('madvise', from, BigInt(`0x${end}`) - from, MADV_DOFORK);
    }
  }
  const pid = call('fork');
  if (pid === 0) Object.defineProperty(process, 'pid', { value: call('getpid') });
  return pid;
}

function exit(status: number): never {
  call('exit_group', status);
  throw new Error('exit_group returned');
}

/** One word that parent and children share: set at the first touch. */
function sharedWord(): DataView {
  const flags = MAP_SHARED | MAP_ANONYMOUS;
  return new DataView(viewOf(BigInt(call('mmap', 0, 4096, PROT_READ | PROT_WRITE, flags, -1, 0)), 4096));
}

function killLater(word: DataView, controller: number, root: number, fault: Instant): void {
  while (word.getInt32(0, true) === 0) if (call('kill', controller, 0) !== 0) return;
  const until = process.hrtime.bigint() + BigInt(fault.after_us) * 1000n;
  while (process.hrtime.bigint() < until);
  const pid = victimOf(controller, fault.victim, root);
  if (pid !== undefined) call('kill', pid, fault.signal);
}

function serve(): void {
  const word = sharedWord();
  for (let line = readLine(); line !== undefined; line = readLine()) {
    if (line === '') continue;
    const order = JSON.parse(line) as FaultOrder;
    if (order.isWarmUp) {
      say(carryOut(order, () => undefined));
      // A restored tree is a child of this process; it will be killed.
      while (call('wait4', -1, 0, 0, 0) > 0);
      continue;
    }
    word.setInt32(0, 0, true);
    const born = fork();
    if (born === 0) {
      report(order, () => word.setInt32(0, 1, true));
      exit(0);
    }
    const killer = order.fault.kind === 'kill at' ? fork() : undefined;
    if (killer === 0) {
      if (order.fault.kind === 'kill at') killLater(word, born, order.pid, order.fault);
      exit(0);
    }
    say({ born, killer });
    const over = statusOf(born);
    if (killer !== undefined) {
      call('kill', killer, 9);
      statusOf(killer);
    }
    say({ over });
  }
}

function statusOf(pid: number): number {
  while (call('wait4', pid, scratch.address, 0, 0) !== pid);
  return scratch.view.getInt32(0, true);
}

if (process.argv[2] === 'serve') serve();
else once();
