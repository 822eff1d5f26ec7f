import { O_ACCMODE, O_CLOEXEC, O_NONBLOCK, O_RDWR } from '../../abi/fcntl.js';
import { FUTEX_CMP_REQUEUE } from '../../abi/futex.js';
import { MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE, PROT_READ, PROT_WRITE } from '../../abi/mman.js';
import { insist } from '../../kernel/insist.js';
import { readMaps } from '../../kernel/procfs/maps.js';
import { readRemote } from '../../kernel/remote.js';
import { freeRange } from '../../tape/gap.js';
import { Tape } from '../../tape/tape.js';
import {
  type Descriptor,
  type DumpContext,
  nameOf,
  type Played,
  type Process,
  type Result,
  type Space,
} from '../contract.js';
import { refuseNow } from '../description/described.js';
import type { Message } from './mqueue-codec.js';
import type { Attributes } from './mqueue-state.js';

/**
 * The messages of a queue can only be taken out. So a process of the tree takes them all, and puts them back in the same
 * order, on one tape, which is played to its end whatever becomes of us: messages of one priority stay in their order,
 * and nobody of the tree runs meanwhile. They are read out of its memory afterwards.
 */
const PAGE = 4096n;

/** Two calls and a number each have to fit into the workspace of a thread. */
export const MESSAGES_MAX = 300;
/** Bytes of memory that are borrowed for them. */
export const ROOM_MAX = 256 << 20;

/**
 * Who takes them: the process that has the queue open, unless a stop or its filters could keep it from putting them back if
 * we died; then another of the tree that may, by way of /proc. Undefined where nobody is fit.
 */
export function readerOf(owner: Process, tree: readonly Process[]): Process | undefined {
  const { effective } = owner.leader.status.uid;
  return [owner, ...tree].find(
    ({ state, leader: { status } }) =>
      state === 'alive' &&
      status.seccomp === 0 &&
      (status.uid.effective === effective || status.uid.effective === 0),
  );
}

export function readMessages(
  descriptor: Descriptor,
  attributes: Attributes,
  context: DumpContext,
): Message[] {
  const { play } = context;
  const reader = readerOf(descriptor.process, context.processes) ?? descriptor.process;
  const { leader } = reader;
  if (play === undefined) return refuseNow(context, descriptor, 'its messages cannot be read here');
  const { tape, space, received, sent, opened } = tapeOf(descriptor, reader, attributes);
  const ask = (each: Tape): Played => {
    const played = play(new Map([[leader, each]])).get(leader);
    if (played === undefined) throw new Error(`${nameOf(leader)} was not asked`);
    return played;
  };
  const giveBack = (): void => {
    // Nobody runs: nothing else has come to be there.
    const back = new Tape(`memory of ${nameOf(leader)} that was used for messages`);
    back.call('munmap', [space.address, space.size]);
    ask(back);
  };
  // Whoever dies now lets everybody run, but the tape has to have played to its end by then.
  using waiting = context.undo?.((tape, take) => untilBack(tape, take(descriptor), attributes.curmsgs));
  const { played, failed, messages } = borrowing(() => {
    const played = ask(tape);
    waiting?.[Symbol.dispose]();
    const failed = [...received, ...sent].some((result) => played.result(result) < 0n);
    const data = (index: number, length: number): Uint8Array =>
      readRemote(leader.tid, space.address + BigInt(index * attributes.msgsize), length);
    const messages = failed
      ? []
      : received.map((result, index) => ({
          priority: priorityOf(played, space.priorities[index]),
          data: data(index, Number(played.result(result))),
        }));
    return { played, failed, messages };
  }, giveBack);
  if (opened !== undefined && played.result(opened) < 0n)
    refuseNow(
      context,
      descriptor,
      `its messages cannot be read: ${nameOf(reader)} may not open it for reading and writing`,
    );
  if (failed) refuseNow(context, descriptor, 'others have changed it while its messages were read');
  return messages;
}

const BEGUN_MS = 20;
const ROUNDS = 200;
const CURMSGS_AT = 24;
const FUTEX_CMP_REQUEUE_PRIVATE = FUTEX_CMP_REQUEUE | 128;

/** Where the guardian waits, for about as many milliseconds as there are rounds at most. futex(2) only compares. */
function untilBack(tape: Tape, queue: Result, count: number): void {
  const attributes = tape.space(64);
  const done = tape.label();
  const word = { kind: 'inside', space: attributes, at: CURMSGS_AT } as const;
  tape.call('poll', [0, 0, BEGUN_MS], 'any');
  for (let round = 0; round < ROUNDS; round++) {
    tape.call('mq_getsetattr', [queue, 0, attributes], 'any');
    tape.jump('futex', [word, FUTEX_CMP_REQUEUE_PRIVATE, 0, 0, word, count], done);
    tape.call('poll', [0, 0, 1], 'any');
  }
  tape.place(done);
}

function borrowing<T>(action: () => T, giveBack: () => void): T {
  try {
    return action();
  } finally {
    insist(giveBack);
  }
}

function priorityOf(played: Played, space: Space | undefined): number {
  return space === undefined ? 0 : played.view(space).getUint32(0, true);
}

interface Asked {
  readonly tape: Tape;
  readonly space: { readonly address: bigint; readonly size: bigint; readonly priorities: readonly Space[] };
  readonly opened: Result | undefined;
  readonly received: readonly Result[];
  readonly sent: readonly Result[];
}

function tapeOf(
  { process: owner, fd, info }: Descriptor,
  reader: Process,
  { curmsgs, msgsize }: Attributes,
): Asked {
  const size = (BigInt(curmsgs) * BigInt(msgsize) + PAGE - 1n) & ~(PAGE - 1n);
  const address = freeRange(readMaps(reader.pid), size);
  if (address === undefined) throw new Error(`${nameOf(reader)} has no room for ${size} bytes of messages`);
  const tape = new Tape(`messages of ${info.link}, for ${nameOf(reader)}`);
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
  tape.call('mmap', [address, size, PROT_READ | PROT_WRITE, flags, -1, 0], address);
  tape.cleanup('munmap', [address, size]);
  const isWhole = reader === owner && (info.info.flags & O_ACCMODE) === O_RDWR;
  const path = tape.string(`/proc/${owner.insidePid}/fd/${fd}`);
  const opened = isWhole ? undefined : tape.call('open', [path, O_RDWR | O_NONBLOCK | O_CLOEXEC, 0], 'any');
  const queue = opened ?? fd;
  const past = tape.space(16);
  const priorities = Array.from({ length: curmsgs }, () => tape.space(8));
  const at = (index: number) => address + BigInt(index * msgsize);
  const received = priorities.map((priority, index) =>
    tape.call('mq_timedreceive', [queue, at(index), msgsize, priority, past], 'any'),
  );
  const sent = priorities.map((priority, index) => {
    const value = { kind: 'value', at: { kind: 'inside', space: priority, at: 0 } } as const;
    // One that was not received has a length no message can have.
    return tape.call('mq_timedsend', [queue, at(index), received[index] ?? -1, value, past], 'any');
  });
  if (opened !== undefined) tape.call('close', [opened], 'any');
  return { tape, space: { address, size, priorities }, opened, received, sent };
}
