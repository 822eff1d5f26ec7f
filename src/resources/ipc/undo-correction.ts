import { type DumpContext, nameOf } from '../contract.js';
import { nameOfSet } from './semaphore-sets.js';
import { type Adjustment, SEMVMX } from './undo-probe.js';
import type { Found } from './undo-search.js';

/**
 * At the end of a task the kernel cuts a value off that would fall below 0 or rise above SEMVMX (ipc/sem.c exit_sem), so
 * that doing the operations once more would not lead back to what it was. The first process then makes up for it.
 */
export function correct(all: readonly Found[], context: DumpContext): Found[] {
  const corrected = new Set<string>();
  return all.map((each) => {
    const { set, values } = each;
    const others = all.filter((other) => other.set.id === set.id);
    const adjustments = each.adjustments.map(([number, by]): Adjustment => {
      const value = values[number] ?? 0;
      const added = others
        .flatMap((other) => other.adjustments.filter(([same]) => same === number))
        .map(([, n]) => n);
      const down = sum(added.filter((n) => n < 0));
      const up = sum(added.filter((n) => n > 0));
      if (value + down >= 0 && value + up <= SEMVMX) return [number, by];
      if (down !== 0 && up !== 0)
        context.refuse({
          task: nameOf(each.thread),
          object: `semaphore undo (SEM_UNDO) of number ${number} of ${nameOfSet(set)}`,
          reason: 'what it would be at the end depends on which of several processes ends first',
        });
      const key = `${set.id}:${number}`;
      const isFirst = !corrected.has(key);
      corrected.add(key);
      const released = Math.min(Math.max(value + down + up, 0), SEMVMX);
      return [number, by, isFirst ? value - released : 0];
    });
    return { ...each, adjustments };
  });
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
