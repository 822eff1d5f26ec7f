import { SIGEV_NONE, SIGEV_SIGNAL } from '../../abi/signal.js';
import { isRecord } from '../../image/json.js';
import { kernelMemory } from '../../kernel/bpf/kernel-memory.js';
import type { Result, Tape } from '../contract.js';
import type { Status } from './mqueue-state.js';

/**
 * mq_notify(3): one process may ask to be told, once, when a message comes to an empty queue. The file of a queue says who
 * and by which signal; the value that the signal carries is read in the kernel's memory (ipc/mqueue.c struct
 * mqueue_inode_info). The process asks again when it has the queue.
 */
export interface Notification {
  /** In the image. */
  readonly pid: number;
  /** SIGEV_SIGNAL or SIGEV_NONE. */
  readonly kind: number;
  readonly signal: number;
  /** sigev_value, hexadecimal. */
  readonly value: string;
}

/** Why it cannot be asked for once more; undefined if it can. `fd` is a descriptor of this process. */
export function notifyProblem(
  fd: number,
  { notify, curmsgs }: Status,
  tree: ReadonlySet<number>,
): string | undefined {
  if (notify === undefined) return undefined;
  const who = `pid ${notify.pid} has asked to be told of its next message (mq_notify)`;
  if (!tree.has(notify.pid)) return `${who}, and is not of the tree`;
  // The kernel tells as the queue gets its first message, which it would when all are put back.
  if (curmsgs > 0) return `${who}, and it holds messages, which have to be taken out to be read`;
  if (notify.kind === SIGEV_NONE) return undefined;
  if (notify.kind !== SIGEV_SIGNAL)
    return `${who} by a thread (SIGEV_THREAD), which cannot be asked for again`;
  try {
    signalValueOf(fd);
    return undefined;
  } catch (error) {
    return `${who}, and what it is to be told cannot be seen (${error instanceof Error ? error.message : String(error)})`;
  }
}

/** Only where there is no `notifyProblem`. */
export function notificationOf(
  fd: number,
  notify: NonNullable<Status['notify']>,
  insidePid: number,
): Notification {
  const { kind, signal } = notify;
  return {
    pid: insidePid,
    kind,
    signal,
    value: kind === SIGEV_SIGNAL ? signalValueOf(fd).toString(16) : '0',
  };
}

function signalValueOf(fd: number): bigint {
  const memory = kernelMemory();
  const file = memory.file(memory.task(process.pid), fd);
  const inode = memory.pointer(memory.member(file, 'file', 'f_inode'));
  const queue = inode - BigInt(memory.types.offset('mqueue_inode_info', 'vfs_inode'));
  return memory.pointer(memory.member(queue, 'mqueue_inode_info', 'notify'));
}

const SIGEVENT_SIZE = 64;

export function askAgain(tape: Tape, fd: Result | number, { kind, signal, value }: Notification): void {
  const event = new Uint8Array(SIGEVENT_SIZE);
  const view = new DataView(event.buffer);
  view.setBigUint64(0, BigInt(`0x${value}`), true);
  view.setInt32(8, signal, true);
  view.setInt32(12, kind, true);
  tape.call('mq_notify', [fd, tape.space(event)], 0);
}

/** Throws Error. */
export function decodeNotification(item: unknown, name: string): Notification {
  const { pid, kind, signal, value } = isRecord(item) ? item : {};
  const isPart = (each: unknown, most: number): each is number =>
    typeof each === 'number' && Number.isInteger(each) && each >= 0 && each <= most;
  if (!isPart(pid, 0x7fff_ffff) || !isPart(kind, SIGEV_NONE) || !isPart(signal, 64))
    throw new Error(`queue ${name} has a request to be told of messages that is none`);
  if (typeof value !== 'string' || !/^[0-9a-f]{1,16}$/.test(value))
    throw new Error(`queue ${name}: the value of a signal is ${JSON.stringify(value)}`);
  return { pid, kind, signal, value };
}
