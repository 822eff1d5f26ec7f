import { readMaps } from '../kernel/procfs/maps.js';
import * as ptrace from '../kernel/ptrace.js';
import { waitFor } from '../kernel/wait.js';
import { borrow } from '../tape/borrow.js';
import { findGadgets } from '../tape/gadgets.js';
import { launchBorrowed, playOne } from '../tape/play.js';
import { Tape } from '../tape/tape.js';

/** Borrows the thread named by argv[2] and dies at the point argv[3] says; see tape/borrow.test.ts. */
const pid = Number(process.argv[2]);
const where = process.argv[3];
const die = (): never => {
  process.kill(process.pid, 'SIGKILL');
  throw new Error('still here');
};

const maps = readMaps(pid);
const gadgets = findGadgets(pid, maps);
if (gadgets === undefined) throw new Error('no gadgets');
ptrace.seize(pid, 0);
ptrace.interrupt(pid);
waitFor(pid);
const [borrowed] = borrow([
  {
    tid: pid,
    inside: { pid, tid: pid },
    name: 'subject',
    registers: ptrace.getRegisters(pid),
    mask: ptrace.getSignalMask(pid),
    xstate: ptrace.getXstate(pid),
    gadgets,
    workspace: { address: 0x1000_0000_0000n, size: 65536 },
    chain: maps.find(({ path }) => path === '[stack]')?.start ?? 0n,
    stopSignal: 23,
  },
]);
if (borrowed === undefined) throw new Error('nothing borrowed');
if (where === 'mapped') die();
const tape = new Tape('descriptors that the tail closes');
const fd = tape.call('eventfd2', [0, 0]);
for (let i = 0; i < 200; i++) tape.call('getppid', []);
tape.cleanup('close', [fd]);
if (where === 'playing') {
  launchBorrowed(borrowed.actor, tape);
  die();
}
playOne(borrowed.actor, tape);
die();
