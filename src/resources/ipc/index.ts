import type { TaskState } from '../contract.js';
import { semaphoreUndo } from './semaphores.js';

/** What processes own of System V IPC. Its shared memory is memory's. */
export const ipcStates: readonly TaskState[] = [semaphoreUndo];
