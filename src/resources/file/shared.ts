import { KCMP_FILE } from '../../abi/process.js';
import { syscall } from '../../kernel/syscall.js';
import type { Conditions } from '../../tape/conditions.js';
import type { Tape } from '../../tape/tape.js';
import type { Descriptor } from '../contract.js';

/** A description, known by one of its descriptors; it has an id in the image once it was dumped. */
interface Known {
  readonly descriptor: Descriptor;
  id: number | undefined;
}

/** Descriptions that look the same, in the order of kcmp(2). */
interface Group {
  readonly known: Known[];
  /** More descriptors of some of them, as far as they were expected. */
  readonly twins: { readonly of: Known; readonly descriptor: Descriptor }[];
  /** Numbers of the conditions for the order to be as it was expected. */
  begin: number;
  end: number;
  isSure: boolean;
}

/** What a descriptor was expected to be, before the tree stood still. */
export interface Expected {
  readonly group: Group;
  readonly known: Known;
}

/**
 * Which descriptors share a description: kcmp(2) KCMP_FILE orders them, consistently until the next boot, so those that
 * look the same are kept in that order and searched by halves. Offset and flags are no part of the look: whoever shares
 * the description from outside of the frozen tree changes them while we read.
 *
 * The order can be found while the tree runs (`expect`), and then only has to be confirmed: every two neighbours still are
 * as they were, or the group is not known any more.
 */
export class Descriptions {
  readonly #groups = new Map<string, Group>();

  /** The id of the description of `descriptor`, by `make` if it is met for the first time. */
  intern(descriptor: Descriptor, make: () => number): number {
    return idOf(place(descriptor, this.#groupOf(descriptor)), make);
  }

  /** As `intern` of a descriptor that is what it was expected to be. */
  internExpected(descriptor: Descriptor, { group, known }: Expected, make: () => number): number {
    return group.isSure ? idOf(known, make) : this.intern(descriptor, make);
  }

  /** The tree runs. Throws SyscallError where this descriptor, or one that it is compared with, has been closed. */
  expect(descriptor: Descriptor): Expected {
    const group = this.#groupOf(descriptor);
    const known = place(descriptor, group);
    if (known.descriptor !== descriptor) group.twins.push({ of: known, descriptor });
    return { group, known };
  }

  /** Put on a tape of this process what confirms the order. */
  askAgain(tape: Tape, conditions: Conditions): void {
    for (const group of this.#groups.values()) {
      const { known, twins } = group;
      const ask = (a: Descriptor, b: Descriptor, expected: number) =>
        conditions.equals(tape.call('kcmp', comparison(a, b), 'any'), expected);
      group.begin = conditions.count;
      known.forEach(({ descriptor }, index) => {
        const next = known[index + 1];
        if (next !== undefined) ask(descriptor, next.descriptor, LESS);
      });
      for (const { of, descriptor } of twins) ask(of.descriptor, descriptor, EQUAL);
      group.end = conditions.count;
    }
  }

  /** Frozen: groups that are not as expected are forgotten. */
  confirm(conditions: Conditions): void {
    for (const [key, group] of this.#groups) {
      group.isSure &&= conditions.firstUnmet(group.begin, group.end) === group.end;
      if (!group.isSure) this.#groups.delete(key);
    }
  }

  /** Frozen: nothing was confirmed. */
  forget(): void {
    this.#groups.clear();
  }

  #groupOf({ info }: Descriptor): Group {
    const key = `${info.stat.dev}:${info.stat.ino}:${info.info.mntId}`;
    const known = this.#groups.get(key);
    if (known !== undefined) return known;
    const group: Group = { known: [], twins: [], begin: 0, end: 0, isSure: true };
    this.#groups.set(key, group);
    return group;
  }
}

function idOf(known: Known, make: () => number): number {
  known.id ??= make();
  return known.id;
}

/** Its place among those that look the same, made where it has none yet. */
function place(descriptor: Descriptor, { known }: Group): Known {
  let low = 0;
  let high = known.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const other = known[middle];
    if (other === undefined) break;
    const order = compare(descriptor, other.descriptor);
    if (order === EQUAL) return other;
    if (order === LESS) high = middle;
    else low = middle + 1;
  }
  const made = { descriptor, id: undefined };
  known.splice(low, 0, made);
  return made;
}

/** What kcmp(2) answers, or 2 for greater. */
const EQUAL = 0;
const LESS = 1;

function comparison(a: Descriptor, b: Descriptor): number[] {
  return [a.process.pid, b.process.pid, KCMP_FILE, a.fd, b.fd];
}

function compare(a: Descriptor, b: Descriptor): number {
  return syscall(
    'kcmp',
    comparison(a, b),
    `descriptors ${a.fd} of pid ${a.process.pid} and ${b.fd} of pid ${b.process.pid}`,
  );
}
