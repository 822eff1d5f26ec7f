import { readFileSync } from 'node:fs';
import { GETALL, GETPID } from '../../abi/ipc.js';
import { scratch } from '../../kernel/memory.js';
import { fail, toNumber, words } from '../../kernel/procfs/field.js';
import { attempt } from '../../kernel/syscall.js';

/** Semaphore sets: /proc/sysvipc/sem (ipc/sem.c sysvipc_sem_proc_show), of this process's IPC namespace. */
export interface SemaphoreSet {
  readonly id: number;
  readonly key: number;
  readonly count: number;
  /** Has anybody ever operated on it? Nobody can have anything to undo before. */
  readonly isUsed: boolean;
}

const PATH = '/proc/sysvipc/sem';

export function parseSemaphoreSets(text: string): SemaphoreSet[] {
  return text
    .split('\n')
    .slice(1)
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const place = { path: PATH, line };
      const [key, id, , count, , , , , otime] = words(line.trim());
      if (otime === undefined) return fail(place, 'not a set of semaphores');
      return {
        id: toNumber(id, place),
        key: Number(key) | 0,
        count: toNumber(count, place),
        isUsed: otime !== '0',
      };
    });
}

export function readSemaphoreSets(): SemaphoreSet[] {
  return parseSemaphoreSets(readFileSync(PATH, 'latin1'));
}

/** /proc/sys/kernel/sem: how many operations one semop(2) may have. */
export function operationsMax(): number {
  const [, , operations] = words(readFileSync('/proc/sys/kernel/sem', 'latin1').trim());
  return Math.min(Number(operations), 500);
}

/** SEMMSL is at most this; the scratch memory has room for as many. */
const COUNT_MAX = 32000;

/** All values; undefined where the set is gone. */
export function valuesOf({ id, count }: SemaphoreSet): number[] | undefined {
  if (count > COUNT_MAX || count * 2 > scratch.bytes.length) return undefined;
  if (attempt('semctl', [id, 0, GETALL, scratch.address]) < 0) return undefined;
  return Array.from({ length: count }, (_, index) => scratch.view.getUint16(index * 2, true));
}

/** Who was last to change each of them. */
export function lastUsers({ id, count }: SemaphoreSet): Set<number> {
  return new Set(Array.from({ length: count }, (_, index) => attempt('semctl', [id, index, GETPID, 0])));
}

/** "semaphore set 5 (key 0x2a)" */
export function nameOfSet({ id, key }: Pick<SemaphoreSet, 'id' | 'key'>): string {
  return `semaphore set ${id} (key 0x${(key >>> 0).toString(16)})`;
}
