/** /proc/PID/io: proc_pid_io(5), fs/proc/base.c do_io_accounting(). */
import { keyed, toBigInt } from './field.js';
import { readText, taskPath, type Where } from './read.js';

export interface Io {
  readonly rchar: bigint;
  readonly wchar: bigint;
  readonly syscr: bigint;
  readonly syscw: bigint;
  readonly read_bytes: bigint;
  readonly write_bytes: bigint;
  readonly cancelled_write_bytes: bigint;
}

function parseIo(text: string, path = '/proc/PID/io'): Io {
  const map = keyed(text, path);
  const value = (key: keyof Io) =>
    toBigInt(map.get(key), { path, line: `${key}: ${map.get(key) ?? '(absent)'}` });
  return {
    rchar: value('rchar'),
    wchar: value('wchar'),
    syscr: value('syscr'),
    syscw: value('syscw'),
    read_bytes: value('read_bytes'),
    write_bytes: value('write_bytes'),
    cancelled_write_bytes: value('cancelled_write_bytes'),
  };
}

/** Without a tid, of all threads together, those that have ended included. */
export function readIo(pid: number, where: Where = {}): Io {
  const path = taskPath(pid, 'io', where);
  return parseIo(readText(path), path);
}
