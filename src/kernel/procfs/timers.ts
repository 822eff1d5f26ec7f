/** /proc/PID/timers, the POSIX timers: proc_pid_timers(5), fs/proc/base.c show_timer(). */
import { fail, lines, present, toBigInt, toNumber } from './field.js';
import { readText, taskPath, type Where } from './read.js';

export interface PosixTimer {
  readonly id: number;
  readonly signal: number;
  /** sigev_value as a pointer. */
  readonly sigval: bigint;
  readonly notify: 'signal' | 'none' | 'thread';
  /** Whether one thread is meant (SIGEV_THREAD_ID), or the process. */
  readonly target: 'tid' | 'pid';
  readonly targetId: number;
  /** Negative for the CPU clock of a process or thread. */
  readonly clock: number;
}

export function parseTimers(text: string, path = '/proc/PID/timers'): PosixTimer[] {
  const all = lines(text);
  const timers: PosixTimer[] = [];
  for (let at = 0; at < all.length; at += 4) timers.push(parseTimer(all.slice(at, at + 4), path));
  return timers;
}

function parseTimer(block: readonly string[], path: string): PosixTimer {
  const [id, signal, notify, clock] = ['ID', 'signal', 'notify', 'ClockID'].map((key, index) => {
    const line = block[index] ?? '';
    const place = { path, line };
    if (!line.startsWith(`${key}: `)) fail(place, `not the line of ${key}`);
    return { place, value: line.slice(key.length + 2) };
  });
  if (id === undefined || signal === undefined || notify === undefined || clock === undefined) {
    fail({ path, line: block.join('|') }, 'not four lines');
  }
  const sent = /^(\d+)\/(?:0x)?([0-9a-f]+)$/.exec(signal.value) ?? fail(signal.place, 'not signal/value');
  const how = /^(signal|none|thread)\/(tid|pid)\.(-?\d+)$/.exec(notify.value);
  if (how === null) fail(notify.place, 'unknown notification');
  return {
    id: toNumber(id.value, id.place),
    signal: toNumber(sent[1], signal.place),
    sigval: toBigInt(sent[2], signal.place, 16),
    notify: how[1] === 'signal' || how[1] === 'none' ? how[1] : 'thread',
    target: how[2] === 'tid' ? 'tid' : 'pid',
    targetId: toNumber(present(how[3], notify.place, 'target'), notify.place),
    clock: toNumber(clock.value, clock.place),
  };
}

export function readTimers(pid: number, where: Where = {}): PosixTimer[] {
  const path = taskPath(pid, 'timers', { proc: where.proc });
  return parseTimers(readText(path), path);
}
