import type { FileKind, TaskState } from '../resources/contract.js';
import { fileLocks, ioUringRequests, fileKinds as plainKinds } from '../resources/file/index.js';
import { ipcKinds, ipcStates } from '../resources/ipc/index.js';
import { memory } from '../resources/memory/index.js';
import { network } from '../resources/namespace/index.js';
import { taskStates as ownStates } from '../resources/process/index.js';
import { networkLock, socketKinds } from '../resources/socket/index.js';

/** Every kind of open file, the more particular ones first. */
const fileKinds: readonly FileKind[] = [...socketKinds, ...ipcKinds, ...plainKinds];

/** Locks first: leases may take privileges that credentials take away. */
const taskStates: readonly TaskState[] = [fileLocks, ioUringRequests, ...ipcStates, ...ownStates];

/** Every kind of kernel object Stasis knows; the engine knows no other. Task states are in the order of their restore. */
export { fileKinds, memory, network, networkLock, taskStates };
