import { together } from '../kernel/together.js';

/**
 * A step that many tasks take together. Who is lost on the way (killed by somebody else, say) must not keep the others
 * from going on to where they can be let go; so failures are kept here, and thrown when everybody has arrived.
 */
export class Barrier<T> {
  readonly #lost = new Map<T, unknown>();

  /** Do `action` for all that are not lost; those for whom it throws are. */
  pass(items: readonly T[], action: (item: T) => void): void {
    for (const item of items) {
      if (this.#lost.has(item)) continue;
      try {
        action(item);
      } catch (error) {
        this.#lost.set(item, error);
      }
    }
  }

  /** As `pass`, of what is done by calls that can be gathered (kernel/together.ts), and asks nothing. */
  passTogether(items: readonly T[], action: (item: T) => void): void {
    const present = items.filter((item) => !this.#lost.has(item));
    for (const [item, error] of together(present, action)) this.#lost.set(item, error);
  }

  isLost(item: T): boolean {
    return this.#lost.has(item);
  }

  /** Throws what was thrown first, if anything was; further failures of other tasks are its `cause`. */
  throwFirst(): void {
    const [first, ...others] = this.#lost.values();
    if (first === undefined) return;
    if (others.length > 0 && first instanceof Error && first.cause === undefined) first.cause = others[0];
    throw first;
  }
}
