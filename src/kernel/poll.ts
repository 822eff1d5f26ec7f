import { scratch } from './memory.js';
import { syscall } from './syscall.js';

/** What poll(2) says of one descriptor without waiting: the POLL* bits, of `wanted` and of those it tells in any case. */
export function pollNow(fd: number, wanted: number): number {
  scratch.view.setInt32(0, fd, true);
  scratch.view.setInt16(4, wanted, true);
  scratch.view.setInt16(6, 0, true);
  syscall('poll', [scratch.address, 1, 0], `descriptor ${fd}`);
  return scratch.view.getUint16(6, true);
}
