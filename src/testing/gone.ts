import { WNOHANG } from '../abi/process.js';
import { attempt } from '../kernel/syscall.js';

const TIMEOUT_MS = 20_000;

/** A root that this process restored is its child, and stays a zombie until it is waited for. */
function areGone(pids: readonly number[]): boolean {
  for (const pid of pids) attempt('wait4', [pid, 0, WNOHANG, 0]);
  return pids.every((pid) => attempt('kill', [pid, 0]) < 0);
}

/** Wait until processes that were killed have left nothing, not even their ids. */
export async function untilGone(pids: readonly number[]): Promise<void> {
  for (const deadline = Date.now() + TIMEOUT_MS; !areGone(pids); ) {
    if (Date.now() > deadline) throw new Error(`some of pids ${pids.join(', ')} are still there`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
