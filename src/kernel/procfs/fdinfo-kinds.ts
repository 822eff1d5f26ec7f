/**
 * Lines of fdinfo that only some kinds of file have: fs/eventfd.c, eventpoll.c, signalfd.c, timerfd.c,
 * notify/fdinfo.c, pidfs.c, drivers/tty, net/unix, kernel/bpf.
 */
import { fail, type Place, toBigInt, toNumber, words } from './field.js';

export interface EpollTarget {
  readonly tfd: number;
  readonly events: number;
  readonly data: bigint;
  /** Of the target file; undefined before Linux 4.13, as the next two. */
  readonly pos: bigint | undefined;
  readonly ino: bigint | undefined;
  readonly sdev: number | undefined;
}

/** What name_to_handle_at would say of the object. */
export interface FileHandle {
  readonly bytes: number;
  readonly type: number;
  /** Two hexadecimal digits a byte. */
  readonly handle: string;
}

export interface InotifyWatch {
  readonly wd: number;
  readonly ino: bigint;
  readonly sdev: number;
  readonly mask: number;
  readonly ignoredMask: number;
  /** Absent where the file system has no handles. */
  readonly handle: FileHandle | undefined;
}

/** One mark; which of ino, mntId and sdev it has tells whether it is on an inode, mount or file system. */
export interface FanotifyMark {
  readonly ino: bigint | undefined;
  readonly mntId: number | undefined;
  readonly sdev: number | undefined;
  readonly mflags: number;
  readonly mask: number;
  readonly ignoredMask: number;
  readonly handle: FileHandle | undefined;
}

export interface Timespec {
  readonly sec: bigint;
  readonly nsec: bigint;
}

export interface TimerfdInfo {
  clockid: number;
  ticks: bigint;
  settimeFlags: number;
  value: Timespec;
  interval: Timespec;
}

export interface KindInfo {
  epoll: EpollTarget[];
  inotify: InotifyWatch[];
  fanotify: FanotifyMark[];
  fanotifyGroup?: { readonly flags: number; readonly eventFlags: number };
  /** The count; id from Linux 5.2, semaphore from 6.5. */
  eventfd?: { count: bigint; id?: number; semaphore?: boolean };
  sigmask?: bigint;
  timerfd?: TimerfdInfo;
  /** −1: the process is reaped; 0: it is of another namespace. */
  pidfd?: { pid: number; nsPid: number[] };
  ttyIndex?: number;
  scmFds?: number;
}

type Reader = (value: string, kind: KindInfo, place: Place) => void;

const ZERO: Timespec = { sec: 0n, nsec: 0n };

function timerfd(kind: KindInfo): TimerfdInfo {
  kind.timerfd ??= { clockid: -1, ticks: 0n, settimeFlags: 0, value: ZERO, interval: ZERO };
  return kind.timerfd;
}

function eventfd(kind: KindInfo, place: Place): NonNullable<KindInfo['eventfd']> {
  return kind.eventfd ?? fail(place, 'no eventfd-count before');
}

function timespec(value: string, place: Place): Timespec {
  const match = /^\((\d+), (\d+)\)$/.exec(value) ?? fail(place, 'not (seconds, nanoseconds)');
  return { sec: toBigInt(match[1], place), nsec: toBigInt(match[2], place) };
}

const READERS: Readonly<Record<string, Reader>> = {
  'eventfd-count': (value, kind, place) => {
    kind.eventfd = { count: toBigInt(value, place, 16) };
  },
  'eventfd-id': (value, kind, place) => {
    eventfd(kind, place).id = toNumber(value, place);
  },
  'eventfd-semaphore': (value, kind, place) => {
    eventfd(kind, place).semaphore = toNumber(value, place) !== 0;
  },
  sigmask: (value, kind, place) => {
    kind.sigmask = toBigInt(value, place, 16);
  },
  clockid: (value, kind, place) => {
    timerfd(kind).clockid = toNumber(value, place);
  },
  ticks: (value, kind, place) => {
    timerfd(kind).ticks = toBigInt(value, place);
  },
  'settime flags': (value, kind, place) => {
    timerfd(kind).settimeFlags = toNumber(value, place, 8);
  },
  it_value: (value, kind, place) => {
    timerfd(kind).value = timespec(value, place);
  },
  it_interval: (value, kind, place) => {
    timerfd(kind).interval = timespec(value, place);
  },
  Pid: (value, kind, place) => {
    kind.pidfd = { pid: toNumber(value, place), nsPid: [] };
  },
  NSpid: (value, kind, place) => {
    if (kind.pidfd === undefined) fail(place, 'no Pid before');
    kind.pidfd.nsPid = words(value).map((word) => toNumber(word, place));
  },
  'tty-index': (value, kind, place) => {
    kind.ttyIndex = toNumber(value, place);
  },
  scm_fds: (value, kind, place) => {
    kind.scmFds = toNumber(value, place);
  },
};

/** Takes a line into the fields of its kind; false where it is of none we know. */
export function parseKindLine(line: string, kind: KindInfo, path: string): boolean {
  const place: Place = { path, line };
  if (line.startsWith('tfd:')) return kind.epoll.push(epollTarget(place)) > 0;
  if (line.startsWith('inotify ')) return kind.inotify.push(inotifyWatch(place)) > 0;
  if (line.startsWith('fanotify ')) return fanotifyLine(kind, place);
  const colon = line.indexOf(':');
  const key = line.slice(0, Math.max(colon, 0));
  const reader = Object.hasOwn(READERS, key) ? READERS[key] : undefined;
  if (reader === undefined) return false;
  reader(line.slice(colon + 1).trim(), kind, place);
  return true;
}

/** `key:value key: value …`, as these lines mix both. */
function pairs(line: string): Map<string, string> {
  const map = new Map<string, string>();
  for (const match of line.matchAll(/([a-z_-]+): *([^\s:]*)/g)) map.set(match[1] ?? '', match[2] ?? '');
  return map;
}

function optional<T>(text: string | undefined, convert: (text: string) => T): T | undefined {
  return text === undefined ? undefined : convert(text);
}

function epollTarget(place: Place): EpollTarget {
  const pair = pairs(place.line);
  return {
    tfd: toNumber(pair.get('tfd'), place),
    events: toNumber(pair.get('events'), place, 16),
    data: toBigInt(pair.get('data'), place, 16),
    pos: optional(pair.get('pos'), (text) => toBigInt(text, place)),
    ino: optional(pair.get('ino'), (text) => toBigInt(text, place, 16)),
    sdev: optional(pair.get('sdev'), (text) => toNumber(text, place, 16)),
  };
}

function fileHandle(pair: Map<string, string>, place: Place): FileHandle | undefined {
  const handle = pair.get('f_handle');
  if (handle === undefined) return undefined;
  const bytes = toNumber(pair.get('fhandle-bytes'), place, 16);
  if (handle.length !== bytes * 2 || !/^[0-9a-f]*$/.test(handle))
    fail(place, 'file handle of another length');
  return { bytes, type: toNumber(pair.get('fhandle-type'), place, 16), handle };
}

function inotifyWatch(place: Place): InotifyWatch {
  const pair = pairs(place.line);
  return {
    wd: toNumber(pair.get('wd'), place, 16),
    ino: toBigInt(pair.get('ino'), place, 16),
    sdev: toNumber(pair.get('sdev'), place, 16),
    mask: toNumber(pair.get('mask'), place, 16),
    ignoredMask: toNumber(pair.get('ignored_mask'), place, 16),
    handle: fileHandle(pair, place),
  };
}

function fanotifyLine(kind: KindInfo, place: Place): boolean {
  const pair = pairs(place.line);
  // Marks on mount namespaces (Linux 6.14) are left to whoever looks at the lines that have no fields.
  if (pair.has('mnt_ns')) return false;
  if (pair.has('event-flags')) {
    const flags = toNumber(pair.get('flags'), place, 16);
    kind.fanotifyGroup = { flags, eventFlags: toNumber(pair.get('event-flags'), place, 16) };
    return true;
  }
  if (!pair.has('ino') && !pair.has('mnt_id') && !pair.has('sdev')) fail(place, 'mark of an unknown kind');
  kind.fanotify.push({
    ino: optional(pair.get('ino'), (text) => toBigInt(text, place, 16)),
    mntId: optional(pair.get('mnt_id'), (text) => toNumber(text, place, 16)),
    sdev: optional(pair.get('sdev'), (text) => toNumber(text, place, 16)),
    mflags: toNumber(pair.get('mflags'), place, 16),
    mask: toNumber(pair.get('mask'), place, 16),
    ignoredMask: toNumber(pair.get('ignored_mask'), place, 16),
    handle: fileHandle(pair, place),
  });
  return true;
}
