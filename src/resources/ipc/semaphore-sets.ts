import { readFileSync } from 'node:fs';
import { ERRNO } from '../../abi/errno.js';
import { GETALL, GETPID } from '../../abi/ipc.js';
import { SyscallError } from '../../kernel/errors.js';
import { NativeMemory } from '../../kernel/memory.js';
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

/** All values; undefined where the set is gone. Throws SyscallError where it may not be read. */
export function valuesOf(set: SemaphoreSet): number[] | undefined {
  using memory = new NativeMemory(set.count * 2);
  const result = attempt('semctl', [set.id, 0, GETALL, memory.address]);
  if (result >= 0) return Array.from({ length: set.count }, (_, n) => memory.view.getUint16(n * 2, true));
  if (GONE.has(-result)) return undefined;
  throw new SyscallError('semctl(GETALL)', -result, nameOfSet(set));
}

const GONE = new Set<number>([ERRNO.EINVAL, ERRNO.EIDRM]);

/** Who was last to change each of them. */
export function lastUsers({ id, count }: SemaphoreSet): Set<number> {
  return new Set(Array.from({ length: count }, (_, index) => attempt('semctl', [id, index, GETPID, 0])));
}

/** "semaphore set 5 (key 0x2a)" */
export function nameOfSet({ id, key }: Pick<SemaphoreSet, 'id' | 'key'>): string {
  return `semaphore set ${id} (key 0x${(key >>> 0).toString(16)})`;
}
