/** /proc/locks and the lock lines of fdinfo: proc_locks(5), fs/locks.c lock_get_status(). */
import { fail, lines, type Place, toBigInt, toNumber, words } from './field.js';
import { readText } from './read.js';

export type LockKind = 'FLOCK' | 'POSIX' | 'ACCESS' | 'OFDLCK' | 'LEASE' | 'DELEG';

export interface FileLock {
  /** Number of the lock's block; waiters have that of what they wait for. */
  readonly id: number;
  /** 0 for a lock that is held, else the depth of the waiter below it. */
  readonly waiting: number;
  readonly kind: LockKind;
  /** ADVISORY, MANDATORY; of leases ACTIVE, BREAKING, BREAKER. */
  readonly mode: string;
  readonly type: 'READ' | 'WRITE' | 'UNLCK';
  /** −1 for OFD locks (nobody owns them); 0 for an owner of another pid namespace. */
  readonly pid: number;
  readonly major: number;
  readonly minor: number;
  readonly inode: bigint;
  readonly start: bigint;
  /** Last byte; undefined is the end of the file. */
  readonly end: bigint | undefined;
}

const KINDS: readonly LockKind[] = ['FLOCK', 'POSIX', 'ACCESS', 'OFDLCK', 'LEASE', 'DELEG'];

/** A line from its number on: `1: -> POSIX  ADVISORY  WRITE 12 fe:00:1234 0 EOF`. */
export function parseLockLine(line: string, path: string): FileLock {
  const place: Place = { path, line };
  const head = /^(\d+): ( *-> )?/.exec(line) ?? fail(place, 'no number of a lock');
  const fields = words(line.slice(head[0].length));
  if (fields.length !== 7) fail(place, `${fields.length} fields instead of 7`);
  const [kindText, mode = '', type, pid, device = '', start, end] = fields;
  const kind = KINDS.find((known) => known === kindText) ?? fail(place, `unknown kind of lock ${kindText}`);
  if (type !== 'READ' && type !== 'WRITE' && type !== 'UNLCK') fail(place, `unknown type of lock ${type}`);
  const [major, minor, inode, ...more] = device.split(':');
  if (more.length > 0) fail(place, `bad device ${device}`);
  return {
    id: toNumber(head[1], place),
    waiting: head[2]?.trimEnd().length === undefined ? 0 : head[2].length - 2,
    kind,
    mode,
    type,
    pid: toNumber(pid, place),
    major: toNumber(major, place, 16),
    minor: toNumber(minor, place, 16),
    inode: toBigInt(inode, place),
    start: toBigInt(start, place),
    end: end === 'EOF' ? undefined : toBigInt(end, place),
  };
}

export function parseLocks(text: string, path = '/proc/locks'): FileLock[] {
  return lines(text).map((line) => parseLockLine(line, path));
}

/**
 * All locks whose owner the pid namespace of this procfs mount can name. The first to ask waits for a grace period of RCU,
 * some 10 ms (fs/locks.c locks_start, percpu_down_write); who asks again within another one does not.
 */
export function readLocks(proc = '/proc'): FileLock[] {
  const text = readText(`${proc}/locks`);
  asked_ms = performance.now();
  return parseLocks(text, `${proc}/locks`);
}

/** Half of the shortest grace period that was seen here. */
const GRACE_MS = 4;
let asked_ms = Number.NEGATIVE_INFINITY;

/** So that whoever asks in the next few milliseconds need not wait: costs nothing where somebody has just asked. */
export function keepLocksReady(): void {
  if (performance.now() - asked_ms > GRACE_MS) readLocks();
}
