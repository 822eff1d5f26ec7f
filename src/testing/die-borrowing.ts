import { PTRACE_O_TRACESYSGOOD } from '../abi/ptrace.js';
import { hook } from '../kernel/ffi.js';
import { readMaps } from '../kernel/procfs/maps.js';
import { listTids } from '../kernel/procfs/tree.js';
import * as ptrace from '../kernel/ptrace.js';
import { waitFor } from '../kernel/wait.js';
import { borrow, giveBack } from '../tape/borrow.js';
import { findGadgets } from '../tape/gadgets.js';
import { launchBorrowed, play } from '../tape/play.js';
import { Tape } from '../tape/tape.js';

/** Borrows the threads of the process argv[2] and dies at the point argv[3] says; see tape/borrow.test.ts. */
const pid = Number(process.argv[2]);
const where = process.argv[3];
const die = (): never => {
  process.kill(process.pid, 'SIGKILL');
  throw new Error('still here');
};

const maps = readMaps(pid);
const gadgets = findGadgets(pid, maps);
if (gadgets === undefined) throw new Error('no gadgets');
const stack = maps.find(({ path }) => path === '[stack]')?.start ?? 0n;
const others = listTids(pid).filter((tid) => tid !== pid);
const tids = [pid, ...others];
for (const tid of tids) {
  // Otherwise our death at a system call of theirs would be a SIGTRAP to them.
  ptrace.seize(tid, PTRACE_O_TRACESYSGOOD);
  ptrace.interrupt(tid);
}
for (const tid of tids) waitFor(tid);
const START = 0x1000_0000_0000n;
const SIZE = 65536;
const hosts = others.length === 0 ? {} : { hosts: { address: START, size: SIZE * tids.length } };
const borrowed = borrow(
  tids.map((tid, index) => ({
    tid,
    inside: { pid, tid },
    name: 'subject',
    registers: ptrace.getRegisters(tid),
    mask: ptrace.getSignalMask(tid),
    xstate: ptrace.getXstate(tid),
    gadgets,
    workspace: { address: START + BigInt(SIZE * index), size: SIZE },
    chain: stack + BigInt(16384 * index),
    stopSignal: 23,
    ...(tid === pid ? hosts : { guestOf: pid }),
  })),
);
if (where === 'mapped') die();
const tape = new Tape('descriptors that the tail closes');
const fd = tape.call('eventfd2', [0, 0]);
for (let i = 0; i < 200; i++) tape.call('getppid', []);
// Who is given back does not go through the tail.
if (where === 'leaving') tape.call('close', [fd]);
else tape.cleanup('close', [fd]);
if (where === 'playing') {
  for (const { actor } of borrowed) launchBorrowed(actor, tape);
  die();
}
play(borrowed.map(({ actor }) => ({ actor, tape })));
if (where === 'leaving') {
  hook.beforeCall = dieAfter(Number(process.argv[4]));
  giveBack(borrowed);
}
die();

/** How far it comes with giving back. */
function dieAfter(calls: number): () => void {
  let left = calls;
  return () => {
    if (left-- === 0) die();
  };
}
