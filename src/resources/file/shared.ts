import { KCMP_FILE } from '../../abi/process.js';
import { syscall } from '../../kernel/syscall.js';
import type { Descriptor } from '../contract.js';

/**
 * Which descriptors share a description: kcmp(2) KCMP_FILE orders them, consistently until the next boot, so those that
 * look the same are kept in that order and searched by halves. Offset and flags are no part of the look: whoever shares
 * the description from outside of the frozen tree changes them while we read.
 */
interface Known<T> {
  readonly descriptor: Descriptor;
  readonly value: T;
}

export class Descriptions<T = { id: number; type: number }> {
  readonly #known = new Map<string, Known<T>[]>();

  /** What was made for the description of `descriptor`, by `make` if it is met for the first time. */
  intern(descriptor: Descriptor, make: () => T): T {
    const key = looksOf(descriptor);
    let known = this.#known.get(key);
    if (known === undefined) {
      known = [];
      this.#known.set(key, known);
    }
    let low = 0;
    let high = known.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const other = known[middle];
      if (other === undefined) break;
      const order = compare(descriptor, other.descriptor);
      if (order === 0) return other.value;
      if (order < 0) high = middle;
      else low = middle + 1;
    }
    const value = make();
    known.splice(low, 0, { descriptor, value });
    return value;
  }
}

function looksOf({ info }: Descriptor): string {
  return `${info.stat.dev}:${info.stat.ino}:${info.info.mntId}`;
}

/** Negative, zero or positive; the kernel answers 0 for equal, 1 for less, 2 for greater. */
function compare(a: Descriptor, b: Descriptor): number {
  const answer = syscall(
    'kcmp',
    [a.process.pid, b.process.pid, KCMP_FILE, a.fd, b.fd],
    `descriptors ${a.fd} of pid ${a.process.pid} and ${b.fd} of pid ${b.process.pid}`,
  );
  return answer === 0 ? 0 : answer === 1 ? -1 : 1;
}
