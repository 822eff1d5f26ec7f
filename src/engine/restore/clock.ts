import { AT_FDCWD, O_WRONLY } from '../../abi/fcntl.js';
import { CLONE_NEWTIME, CLONE_PARENT, CLONE_PTRACE } from '../../abi/process.js';
import type { ImageReader } from '../../image/index.js';
import { boottime_ns } from '../../kernel/clock.js';
import { readTimeOffsets, type TimeOffset } from '../../kernel/procfs/idmap.js';
import { Tape } from '../../tape/tape.js';
import { clone } from './clone.js';

/**
 * Clocks that count from the boot of a host. For a program they may jump forward, as they do when it is stopped, but
 * never go back, which they would on a host that was booted later than the one it comes from. There the tree gets a
 * time namespace (time_namespaces(7)) in which they go on from where they were.
 */
export interface ClockShift {
  /** Nanoseconds that programs' clocks are ahead of ours. */
  readonly monotonic: bigint;
  readonly boottime: bigint;
}

const SECOND = 1_000_000_000n;

/**
 * The shift a tree needs here; undefined where none of its clocks would go back. One that comes out of a time namespace
 * gets one in any case: who was just asking the vDSO for the time goes on with data that is only there in such a one
 * (lib/vdso/gettimeofday.c do_hres_timens).
 */
export function clockShift(reader: ImageReader, root: number): ClockShift | undefined {
  const [ids] = reader.readOptional('ids', root) ?? [];
  const own = reader.readOptional('timens', ids?.timeNsId ?? 0);
  const [saved] = own ?? reader.readOptional('timens', 0) ?? [];
  if (saved === undefined) return undefined;
  const monotonic = nanoseconds(saved.monotonic) - process.hrtime.bigint();
  const boottime = nanoseconds(saved.boottime) - boottime_ns();
  const isNamespaced = own !== undefined && ids !== undefined && ids.timeNsId !== 0;
  if (!isNamespaced && monotonic <= 0n && boottime <= 0n) return undefined;
  return { monotonic: monotonic > 0n ? monotonic : 0n, boottime: boottime > 0n ? boottime : 0n };
}

function nanoseconds(time: { tvSec: bigint; tvNsec: bigint } | undefined): bigint {
  return time === undefined ? 0n : time.tvSec * SECOND + time.tvNsec;
}

/**
 * Played by a stem that is then of no more use: children it forks from here on are in a time namespace of their own.
 * The kernel counts offsets from the initial namespace, so ours are added.
 */
export function shiftTape(shift: ClockShift): Tape {
  const tape = new Tape('time namespace');
  tape.call('unshare', [CLONE_NEWTIME]);
  const own = readTimeOffsets(process.pid);
  const text = (['monotonic', 'boottime'] as const)
    .map((clock) => offsetLine(clock, offsetOf(own, clock) + shift[clock]))
    .join('');
  const bytes = Buffer.from(text);
  const file = tape.call('openat', [AT_FDCWD, tape.string('/proc/self/timens_offsets'), O_WRONLY, 0]);
  tape.call('write', [file, tape.space(bytes), bytes.length], bytes.length);
  tape.call('close', [file]);
  return tape;
}

/** Played by the same stem: the root, as its sibling. */
export function rootTape(pid: number): Tape {
  const tape = new Tape(`birth of the root ${pid} in a time namespace`);
  clone(tape, pid, CLONE_PTRACE | CLONE_PARENT, 0);
  return tape;
}

/** Nanoseconds by which a clock of a namespace is ahead of the initial one's. */
export function offsetOf(offsets: readonly TimeOffset[], clock: TimeOffset['clock']): bigint {
  const found = offsets.find((offset) => offset.clock === clock);
  return found === undefined ? 0n : found.sec * SECOND + BigInt(found.nsec);
}

function offsetLine(clock: string, offset: bigint): string {
  const rest = ((offset % SECOND) + SECOND) % SECOND;
  return `${clock} ${(offset - rest) / SECOND} ${rest}\n`;
}
