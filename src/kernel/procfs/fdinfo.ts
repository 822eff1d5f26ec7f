/** /proc/PID/fdinfo/FD: proc_pid_fdinfo(5), fs/proc/fd.c seq_show() and each file's show_fdinfo. */
import { type KindInfo, parseKindLine } from './fdinfo-kinds.js';
import { fail, lines, toBigInt, toNumber } from './field.js';
import { type FileLock, parseLockLine } from './locks.js';
import { readText, taskPath, type Where } from './read.js';

export type {
  EpollTarget,
  FanotifyMark,
  FileHandle,
  InotifyWatch,
  KindInfo,
  TimerfdInfo,
} from './fdinfo-kinds.js';

export interface Fdinfo extends Readonly<KindInfo> {
  readonly pos: bigint;
  /** O_* of the description, and O_CLOEXEC of the descriptor. */
  readonly flags: number;
  readonly mntId: number;
  /** From Linux 5.14. */
  readonly ino: bigint | undefined;
  readonly locks: readonly FileLock[];
  /** `key: value` lines that are not typed above (bpf's map_type …, io_uring's, drm-…). */
  readonly fields: ReadonlyMap<string, string>;
  /** Lines that are not even that, and repeated keys. */
  readonly rest: readonly string[];
}

/** All that most files have to show. */
const PLAIN = /^pos:\t(\d{1,15})\nflags:\t([0-7]+)\nmnt_id:\t(\d+)\nino:\t(\d+)\n$/;

export function parseFdinfo(text: string, path = '/proc/PID/fdinfo/FD'): Fdinfo {
  const plain = PLAIN.exec(text);
  if (plain !== null) {
    const [, pos = '', flags = '', mntId = '', ino = ''] = plain;
    return {
      pos: BigInt(pos),
      flags: Number.parseInt(flags, 8),
      mntId: Number(mntId),
      ino: BigInt(ino),
      locks: [],
      fields: new Map(),
      rest: [],
      epoll: [],
      inotify: [],
      fanotify: [],
    };
  }
  const common = new Map<string, string>();
  const locks: FileLock[] = [];
  const fields = new Map<string, string>();
  const rest: string[] = [];
  const kind: KindInfo = { epoll: [], inotify: [], fanotify: [] };
  for (const line of lines(text)) {
    const colon = line.indexOf(':');
    const key = line.slice(0, Math.max(colon, 0));
    const value = line.slice(colon + 1).trim();
    if (COMMON.has(key) && !common.has(key)) common.set(key, value);
    else if (key === 'lock') locks.push(parseLockLine(value, path));
    else if (parseKindLine(line, kind, path)) continue;
    else if (colon > 0 && !fields.has(key)) fields.set(key, value);
    else if (line !== '') rest.push(line);
  }
  const place = (key: string) => ({ path, line: `${key}: ${common.get(key) ?? '(absent)'}` });
  if (!common.has('pos')) fail(place('pos'), 'no position');
  const ino = common.get('ino');
  return {
    pos: toBigInt(common.get('pos'), place('pos')),
    flags: toNumber(common.get('flags'), place('flags'), 8),
    mntId: toNumber(common.get('mnt_id'), place('mnt_id')),
    ino: ino === undefined ? undefined : toBigInt(ino, place('ino')),
    locks,
    fields,
    rest,
    ...kind,
  };
}

const COMMON: ReadonlySet<string> = new Set(['pos', 'flags', 'mnt_id', 'ino']);

export function readFdinfo(pid: number, fd: number, where: Where = {}): Fdinfo {
  const path = taskPath(pid, `fdinfo/${fd}`, where);
  return parseFdinfo(readText(path), path);
}
