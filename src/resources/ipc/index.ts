import type { FileKind, TaskState } from '../contract.js';
import { mqueue } from './mqueue.js';
import { semaphoreUndo } from './semaphores.js';

/** What processes own of System V IPC. Its shared memory is memory's. */
export const ipcStates: readonly TaskState[] = [semaphoreUndo];

/** Queues look like regular files. */
export const ipcKinds: readonly FileKind[] = [mqueue];
