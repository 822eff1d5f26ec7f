import { CLOCK_BOOTTIME } from '../abi/process.js';
import { scratch } from './memory.js';
import { syscall } from './syscall.js';

/** clock_gettime(2), in nanoseconds. */
export function clock_ns(clock: number): bigint {
  syscall('clock_gettime', [clock, scratch.address]);
  return scratch.view.getBigInt64(0, true) * 1_000_000_000n + scratch.view.getBigInt64(8, true);
}

/** CLOCK_BOOTTIME in nanoseconds: CLOCK_MONOTONIC (process.hrtime) plus the time the host slept. */
export function boottime_ns(): bigint {
  return clock_ns(CLOCK_BOOTTIME);
}
