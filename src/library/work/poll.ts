import { POLLIN } from '../../abi/event.js';
import { NativeMemory } from '../../kernel/memory.js';
import { syscall } from '../../kernel/syscall.js';

/** poll(2): which of these descriptors can be read (or have come to their end), after at most `timeout_ms` (−1: ever). */
export function poll(fds: readonly number[], timeout_ms: number): number[] {
  const SIZE = 8;
  using memory = new NativeMemory(fds.length * SIZE);
  fds.forEach((fd, index) => {
    memory.view.setInt32(index * SIZE, fd, true);
    memory.view.setInt16(index * SIZE + 4, POLLIN, true);
  });
  syscall('poll', [memory.address, fds.length, timeout_ms], 'requests and restored roots');
  return fds.filter((_, index) => memory.view.getInt16(index * SIZE + 6, true) !== 0);
}
