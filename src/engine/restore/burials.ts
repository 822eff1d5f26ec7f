import { unlessVanished } from '../../kernel/procfs/error.js';
import { readState } from '../../kernel/procfs/stat.js';
import { sleep_us } from '../../kernel/syscall.js';

/** Long for a parent that collects its children at all. */
const PATIENCE_MS = 2000;
const ENDED = new Set(['Z', 'X']);

/** Who was killed has its number until its parent has collected it, which is a matter of moments after a dump. */
export function awaitBurials(pids: Iterable<number>): void {
  const deadline = Date.now() + PATIENCE_MS;
  for (const pid of pids)
    while (ENDED.has(unlessVanished(() => readState(pid, pid)) ?? '') && Date.now() < deadline) sleep_us(500);
}
