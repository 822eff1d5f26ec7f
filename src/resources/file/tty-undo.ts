import { SPLICE_F_NONBLOCK } from '../../abi/fcntl.js';
import { TCSETS2, TIOCPKT, TIOCSLCKTRMIOS } from '../../abi/ioctl.js';
import type { Result, Tape } from '../contract.js';
import { rawTermios, refillTermios } from './tty-settings.js';
import type { Pair, Pipe } from './tty-unread.js';

/** What the guardian needs to know; all descriptors are this process's, which has them until it is gone. */
export interface PutBack {
  readonly pair: Pair;
  readonly input: Pipe;
  readonly output: Pipe;
  readonly termios: Uint8Array;
  readonly locked: Uint8Array;
  readonly packet: boolean;
  /** Take out what is left first, so that the order stays as it was. */
  readonly drain: boolean;
  /** How much of `input` the line discipline had seen; 0 for all. */
  readonly treated: number;
}

const ROUNDS = 8;
const ALL = 1 << 16;
const POLLIN = 1;
/** For the kernel's worker to give the line discipline its part. */
const SETTLE_MS = 20;

/**
 * Entries for the guardian, when we have died between taking and putting back: it takes the pipes and the terminal
 * from us (we stand still at our exit) and puts back what the pipes hold.
 */
export function putBackDuty(tape: Tape, duty: PutBack): void {
  const { termios } = duty;
  tape.about(`put back what waited in ${duty.pair.name}`);
  const us = tape.call('pidfd_open', [process.pid, 0], 'any');
  const take = (fd: number): Result => tape.call('pidfd_getfd', [us, fd, 0], 'any');
  const [slave, master] = [take(duty.pair.slave), take(duty.pair.master)];
  const [input, output] = [take(duty.input.read), take(duty.output.read)];
  const set = (fd: Result, request: number, bytes: Uint8Array): void => {
    tape.call('ioctl', [fd, request, tape.space(bytes)], 'any');
  };
  if (duty.drain) {
    set(slave, TIOCSLCKTRMIOS, new Uint8Array(duty.locked.length));
    if (duty.packet) set(master, TIOCPKT, new Uint8Array(4));
    set(slave, TCSETS2, rawTermios(termios));
    drain(tape, slave, take(duty.input.write));
    drain(tape, master, take(duty.output.write));
  }
  set(slave, TCSETS2, refillTermios(termios, { eof: 0, stop: 0, start: 0 }));
  move(tape, output, slave, ALL);
  if (duty.treated > 0) move(tape, input, master, duty.treated, 1);
  tape.call('poll', [0, 0, SETTLE_MS], 'any');
  if (duty.treated === 0) {
    move(tape, input, master, ALL);
    tape.call('poll', [0, 0, SETTLE_MS], 'any');
  }
  set(slave, TCSETS2, termios);
  move(tape, input, master, ALL);
  set(slave, TIOCSLCKTRMIOS, duty.locked);
  if (duty.packet) set(master, TIOCPKT, Uint8Array.of(1, 0, 0, 0));
}

/** As long as poll(2) says that there is something, which also waits for what is on its way. */
function drain(tape: Tape, from: Result, to: Result): void {
  const events = tape.space(Uint8Array.of(0, 0, 0, 0, POLLIN, 0, 0, 0));
  tape.copy(from, events, 0);
  const done = tape.label();
  for (let round = 0; round < ROUNDS; round++) {
    tape.jump('poll', [events, 1, 0], done);
    tape.call('splice', [from, 0, to, 0, ALL, SPLICE_F_NONBLOCK], 'any');
  }
  tape.place(done);
}

function move(tape: Tape, from: Result, to: Result, length: number, rounds = ROUNDS): void {
  for (let round = 0; round < rounds; round++)
    tape.call('splice', [from, 0, to, 0, length, SPLICE_F_NONBLOCK], 'any');
}
