import type { FileKind } from '../resources/contract.js';
import { fileKinds as plainKinds } from '../resources/file/index.js';
import { memory } from '../resources/memory/index.js';
import { taskStates } from '../resources/process/index.js';
import { socketKinds } from '../resources/socket/index.js';

/** Every kind of open file, the more particular ones first. */
const fileKinds: readonly FileKind[] = [...socketKinds, ...plainKinds];

/** Every kind of kernel object Stasis knows; the engine knows no other. Task states are in the order of their restore. */
export { fileKinds, memory, taskStates };
