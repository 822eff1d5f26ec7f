/**
 * SIGSTOP can neither be blocked nor ignored, so one that is pending, or arrives while a task runs for us, stops the
 * task at its delivery. It is not delivered then but remembered here, and raised again when the task is let go.
 */
const met = new Set<number>();

export const SIGSTOP = 19;

export function rememberStop(tid: number): void {
  met.add(tid);
}

export function hasMetStop(tid: number): boolean {
  return met.has(tid);
}

/** Was one met since the last time? Forgets it. */
export function takeStop(tid: number): boolean {
  return met.delete(tid);
}
