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
