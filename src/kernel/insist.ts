/**
 * What ends or undoes something must be done even if our own code throws on the way: it is tried once more. `action` can be
 * repeated, whatever of it was done.
 */
export function insist<T>(action: () => T): T {
  try {
    return action();
  } catch {
    return action();
  }
}

/** All of them, whatever becomes of one; throws what was thrown first. */
export function insistOnAll(actions: Iterable<() => unknown>): void {
  const errors: unknown[] = [];
  for (const action of actions)
    try {
      insist(action);
    } catch (error) {
      errors.push(error);
    }
  if (errors.length > 0) throw errors[0];
}
